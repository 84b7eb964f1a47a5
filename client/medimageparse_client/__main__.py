import sys

from medimageparse_client.cli import main

sys.exit(main())
