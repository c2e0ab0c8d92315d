#!/usr/bin/env bash
# A run on a Cloud TPU pod slice, by the cloud's own command line: create the
# slice, copy a build to all hosts, run, watch, fetch. Each command is printed
# before it runs; --dry-run only prints.
#
#   tools/tpu_pod.sh [--dry-run] create NAME ZONE TYPE       such as v3-256
#   tools/tpu_pod.sh [--dry-run] copy   NAME ZONE            the built program and configs/
#   tools/tpu_pod.sh [--dry-run] run    NAME ZONE ARGUMENTS..   of `xla-moco train`, on every host
#   tools/tpu_pod.sh [--dry-run] tail   NAME ZONE RUN        progress, as host 0 writes it
#   tools/tpu_pod.sh [--dry-run] fetch  NAME ZONE RUN        the run's folder, to here
#   tools/tpu_pod.sh [--dry-run] delete NAME ZONE
#
# --out and --data have to be folders that all hosts see (NFS, Filestore, a
# mounted bucket). `run` again goes on from the newest checkpoint, after a
# preemption too. TPU_VERSION sets the machines' software, PROJECT the project.
set -euo pipefail

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

dry=false
if [ "${1:-}" = --dry-run ]; then
  dry=true
  shift
fi
[ $# -ge 3 ] || usage
what=$1 name=$2 zone=$3
shift 3

cloud=(gcloud compute tpus tpu-vm)
where=("$name" --zone="$zone")
[ -z "${PROJECT:-}" ] || where+=(--project="$PROJECT")
home=xla-moco

do_it() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  $dry || "$@"
}

on() { # workers, command
  do_it "${cloud[@]}" ssh "${where[@]}" --worker="$1" --command="$2"
}

if ! $dry && ! command -v gcloud > /dev/null; then
  echo "gcloud is not installed: see https://cloud.google.com/sdk/docs/install (--dry-run needs none)" >&2
  exit 1
fi

case $what in
  create)
    [ $# = 1 ] || usage
    do_it "${cloud[@]}" create "${where[@]}" --accelerator-type="$1" \
      --version="${TPU_VERSION:-tpu-ubuntu2204-base}"
    ;;
  copy)
    [ $# = 0 ] || usage
    cd "$(dirname "$0")/.."
    $dry || [ -x target/release/xla-moco ] || {
      echo "target/release/xla-moco is not built: cargo build --release" >&2
      exit 1
    }
    on all "mkdir -p $home"
    do_it "${cloud[@]}" scp --recurse --worker=all "${where[@]:1}" \
      target/release/xla-moco configs "$name:$home/"
    on all "$home/xla-moco plugins install tpu"
    ;;
  run)
    [ $# -ge 1 ] || usage
    on all "cd $home && ./xla-moco train --pjrt tpu$(printf ' %q' "$@")"
    ;;
  tail)
    [ $# = 1 ] || usage
    on 0 "cd $home && tail -n 5 -f $(printf %q "$1")/metrics.jsonl"
    ;;
  fetch)
    [ $# = 1 ] || usage
    do_it "${cloud[@]}" scp --recurse --worker=0 "${where[@]:1}" "$name:$home/$1" .
    ;;
  delete)
    [ $# = 0 ] || usage
    do_it "${cloud[@]}" delete "${where[@]}" --quiet
    ;;
  *) usage ;;
esac
