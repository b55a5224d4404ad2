"""The `modelyard` command, also `kubectl modelyard`: reads the kubeconfig and acts as its user."""
