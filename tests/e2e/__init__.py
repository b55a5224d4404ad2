"""End-to-end tests: a real cluster, the real images, the chart. They take a kubeconfig and a way to load images."""
