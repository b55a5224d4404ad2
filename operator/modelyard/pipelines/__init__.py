"""Pipelines: from a TrainingPipeline's steps to a finished run, without a cluster.

Everything here is pure: it takes what is known and says what to do.  In the order of a run's life:

``compile``   a TrainingPipeline's steps → KFP's PipelineSpec IR and its platform documents
``freeze``    the IR and all it depends on, as one JSON document with a digest
``resolve``   what a task's arguments are, once its upstream tasks are done
``cache``     the key under which a task's outputs may be used again
``jobs``      the Job (and Service) that run one attempt of a task
``manifest``  what an attempt says about itself in its termination message
``state``     one step of a run's life: ``decide(frozen, spec, status, observed, now)``
``schedule``  which runs are due, and their names
"""
