#!/bin/sh
# Writes cri_pb2.py and events_pb2.py anew. The generator is pinned (pyproject, extra dev): code made by 1.71.2 loads on
# protobuf 5.29 to 7, newer generators' does not load on older runtimes.
set -eu
cd "$(dirname "$0")/../../.."
exec "${PYTHON:-.venv/bin/python}" -m grpc_tools.protoc -I. --python_out=. agent/runtime/pb/cri.proto agent/runtime/pb/events.proto
