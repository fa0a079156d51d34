"""Admission that users bring along: webhooks and policies in CEL.

    matching      which writes a webhook or policy is about
    expressions   CEL over object, oldObject, request, params
    review        the AdmissionReview that is sent, and what comes back
    hooks         webhook configurations: called in order, mutating ones before validating ones
    policies      ValidatingAdmissionPolicies and their bindings

Called by the chain; nothing here costs anything while no configuration exists.
"""
