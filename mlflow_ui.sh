#!/usr/bin/env bash
# Opens the MLflow UI on http://localhost:5000 for the store of the jobs: MLFLOW_TRACKING_URI, or
# sqlite:///mlflow.db beside this file. Arguments go to `mlflow ui`: ./mlflow_ui.sh --port 5001, or
# make ui ARGS="--port 5001"
set -euo pipefail
uri="${MLFLOW_TRACKING_URI:-sqlite:///$(cd "$(dirname "$0")" && pwd)/mlflow.db}"
case "$uri" in
  http://* | https://*)
    echo "the store is a server with a UI of its own: open $uri" >&2
    exit 0
    ;;
esac
if ! command -v mlflow > /dev/null; then
  echo "mlflow must be on the PATH; run \`make ui\`, or activate the environment first" >&2
  exit 2
fi
export MLFLOW_DISABLE_TELEMETRY="${MLFLOW_DISABLE_TELEMETRY:-true}"
exec mlflow ui --backend-store-uri "$uri" --host 127.0.0.1 --port 5000 "$@"
