#!/usr/bin/env bash
# Every test, in two sets beside each other. What waits for cameras, windows and networks needs its
# processor at once, and little of it; what computes has what is left of all of them.
set -uom pipefail # m: else programs in the background would not hear Ctrl-C, which tests press
cd "$(dirname "$0")/.."
pytest=(.venv/bin/python -m pytest)
live=(tests/test_runtime_*.py tests/test_benchmarks_live.py)

computing=$(mktemp)
beside=0
trap '((beside == 0)) || kill -- -"$beside" 2>/dev/null; rm -f "$computing"' EXIT
workers=$(.venv/bin/python -c 'from runtime.machine import usable_cpus; print(usable_cpus())')
# One thread each: the networks are small, and threads that wait for a busy core are slow.
OMP_NUM_THREADS=1 nice -n 10 "${pytest[@]}" -n "$workers" --dist loadfile \
	--durations 15 "${live[@]/#/--ignore=}" >"$computing" 2>&1 &
beside=$!

"${pytest[@]}" "${live[@]}"
live_status=$?
echo "waiting for the tests that compute"
wait "$beside"
computing_status=$?
cat "$computing"
exit $((live_status > computing_status ? live_status : computing_status))
