"""Monitoring: what the training data looked like, and whether what is served still does.

``profile``  the reference: buckets, their ratios in the training data, and how much those vary by themselves (numpy)
``drift``    distances between two sets of bucket counts, and when they are reason to retrain (standard library)
``quality``  AUC, Brier score and log loss, and the bootstrap by day (numpy)
``worker``   the monitor process: feature parity of served vectors, and quality on labels as they arrive
"""
