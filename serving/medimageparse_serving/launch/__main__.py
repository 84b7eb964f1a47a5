"""`python -m medimageparse_serving.launch --runtime cpu`"""

import sys

from medimageparse_serving.launch.serve import main

if __name__ == "__main__":
    sys.exit(main())
