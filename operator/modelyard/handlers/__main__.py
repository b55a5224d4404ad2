"""`python -m modelyard.handlers` runs the operator."""

from modelyard.handlers.app import main

main()
