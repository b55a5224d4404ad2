"""The `modelyard` command, also `kubectl modelyard`: reads the kubeconfig, acts as its user, needs no server of its own."""
