"""Features: one definition, two readers (the point-in-time join and the online store), one semantics.

``definitions`` reads a FeatureView; ``sql`` runs its transform over its source; ``join`` builds training
sets; ``online`` holds the rows that can still matter for serving and answers from them by the very same rule;
``materialize`` moves rows from the one to the other; ``server`` speaks HTTP in Feast's form.
"""
