"""The same as `python -m medimageparse_serving.launch`, for who starts it by this path."""

import sys

from medimageparse_serving.launch.serve import main

if __name__ == "__main__":
    sys.exit(main())
