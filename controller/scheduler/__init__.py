"""Where pods go: a numpy picture of the nodes, filters that explain themselves, scores, and one pure decision.

`loop.run_scheduler` is called by `controller.main` while this controller leads. It reads the store's cache and writes
through the registry (bind, PodScheduled condition, events); everything between is plain functions:

    demand.py     what a pod asks for, reduced to a class of equal pods
    snapshot.py   what the nodes offer and what is already placed
    matching.py   taints, selector terms, pod selectors
    filters.py    which nodes a class may use, and why not the others
    scores.py     which of them is best
    topology.py   constraints between pods: affinity, anti-affinity, spread
    decide.py     pending pods + snapshot -> bindings and refusals
"""
