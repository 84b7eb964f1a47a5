"""Environment variables by which the launcher tells the Python steps what they cannot know otherwise."""

RUNTIME = "MEDIMAGEPARSE_RUNTIME"  # for the reports
STEP_PATIENCE = "MEDIMAGEPARSE_STEP_PATIENCE"  # seconds that a request waits for a step that died and is loaded again
INNER_KEY = "MEDIMAGEPARSE_INNER_KEY"  # a word: inner models answer who knows it
GATE = "MEDIMAGEPARSE_GATE"  # names a file that is there as long as the launcher warms the server up
ACCESS_LOG = "MEDIMAGEPARSE_ACCESS_LOG"  # how a public model writes a line for each request: text, json or off
CACHE_BYTES = "MEDIMAGEPARSE_FEATURE_CACHE_BYTES"  # of each image encoder's features, in place of the configuration's
TRACED = "MEDIMAGEPARSE_TRACED"  # set: calls are parts of a request's trace
