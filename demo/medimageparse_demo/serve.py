"""`make serve-demo`: serve.py with the demo checkpoints, from a copy of the model repository of its own."""

import sys

from medimageparse_serving.launch import serve

from medimageparse_demo.repository import demo_repository

if __name__ == "__main__":
    sys.exit(serve.main(demo_repository))
