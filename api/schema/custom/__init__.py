"""The schemas of custom resources: parsed from a CustomResourceDefinition, compiled, and asked like the built-in ones.

    structural   the parsed schema (a tree of frozen nodes)
    shaping      what a write does to an object: prune what the schema does not know, set defaults
    values       what the schema says about values, in Kubernetes' words
    jsonpath     the paths that printer columns, selectable fields and scales name
    rules        CEL rules (x-kubernetes-validations); needs the extra `wherry[cel]`
    type         CustomType: all of it for one version of one kind, hung on its row in the table of kinds

Called by `api.schema` (check, default, merge_schema, OpenAPI), by columns and by the registry. Pure.
"""
