"""Thin helpers around the Kubernetes API: requests, the work queue, conditions, events and leadership.

Nothing here knows what a model is. `handlers`, `cli` and the router's agent may import it; the decisions may not.
"""
