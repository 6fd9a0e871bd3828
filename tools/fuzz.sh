# ./dev fuzz. Part of ./dev, and not run by itself.

fuzz_targets=(drop_ins options)

# run_fuzzer NAME SECONDS LOG: from the corpus that earlier runs have left, which is kept small.
run_fuzzer() {
  local corpus=$build/corpus/$1
  mkdir -p "$corpus"
  "$build/tests/fuzz/fuzz_$1" -max_total_time="$2" -max_len=400 -timeout=20 -rss_limit_mb=4096 \
    -artifact_prefix="$build/$1-" -print_final_stats=1 "$corpus" >"$3" 2>&1
}

# Fuzzing that finds nothing is worth something only where it would have found something.
find_planted() {
  say 'fuzzing drop_ins with a bug planted'
  if ANNULET_FUZZ_PLANTED=1 run_fuzzer drop_ins 60 "$build/planted.log"; then
    fail "the planted bug was not found in 60 s ($build/planted.log)"
  fi
  grep -q 'as a drop-in' "$build/planted.log" || fail "it failed in another way ($build/planted.log)"
  rm -f "$build"/drop_ins-crash-*
}

fuzz() {
  local seconds=600 chosen=()
  while [[ $# -gt 0 ]]; do
    case $1 in
      --seconds)
        [[ ${2-} =~ ^[1-9][0-9]{0,5}$ ]] || refuse "--seconds wants a number, not '${2-}'"
        seconds=$2
        shift
        ;;
      *)
        [[ " ${fuzz_targets[*]} " == *" $1 "* ]] ||
          refuse "there is no target '$1'; there are ${fuzz_targets[*]}"
        chosen+=("$1")
        ;;
    esac
    shift
  done
  [[ ${#chosen[@]} -gt 0 ]] || chosen=("${fuzz_targets[@]}")
  local build=build-fuzz name fell_short=0
  unset ANNULET_ENGINE ANNULET_RING_MODE
  install_missing "${packages_to_build[@]}" "${packages_to_sanitize[@]}"
  export CXX=clang++-19 ASAN_SYMBOLIZER_PATH=/usr/bin/llvm-symbolizer-19
  export ASAN_OPTIONS=detect_stack_use_after_return=1
  configure "$build" -Dfuzz=true -Dtests=false -Doptimization=1 -Db_lundef=false -Dwerror=false \
    -Db_sanitize=address,undefined -Dcpp_args='-fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined'
  compile "$build" "${fuzz_targets[@]/#/tests/fuzz/fuzz_}"
  find_planted
  for name in "${chosen[@]}"; do
    say "fuzzing $name for $seconds s"
    if run_fuzzer "$name" "$seconds" "$build/$name.log"; then
      grep -E 'stat::number_of_executed_units|^#[0-9]+.DONE' "$build/$name.log" | tail -n 2
    else
      tail -n 40 "$build/$name.log" >&2
      fell_short=1
    fi
  done
  [[ $fell_short -eq 0 ]]
}
