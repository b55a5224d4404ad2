"""Serving: what decides, builds and runs the pods that answer requests.

`rollout` decides and `analysis` judges, with the tests of `sequential` on the numbers that `promql` asks
for; `objects` builds the Kubernetes objects. All of these are pure: they read no clock, no cluster and no
network.
"""
