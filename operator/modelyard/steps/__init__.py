"""What runs inside step containers: ``python -m modelyard.steps COMPONENT``.

``__main__``   dispatch, and the manifest at the end, whatever happens
``context``    the step's input, typed, and the two kinds of errors that are the user's
``tables``     Parquet and CSV in and out
``ingest``, ``validate``, ``features``, ``train``, ``evaluate``, ``register``, ``predict``   the built-in components
``materialize``  a FeatureView into the online store
``publish``    the sidecar that publishes the outputs of an image which is not ours
"""
