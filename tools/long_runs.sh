# The long runs of ./dev, for hours. Part of it, and not run by itself.

battery() {
  local rows=(races wait_races close churn oracle models fibers forks storms soak simulation timing drop_ins
    drop_in_scenes ported unchanged repeat repeat_busy suites_busy refused)
  local chosen=
  local sorts=(any ring epoll refused)  # the ladder is for every ./dev test
  while [[ $# -gt 0 ]]; do
    case $1 in
      --engine)
        restrict_to "${2-}"
        shift
        ;;
      *)
        [[ -z $chosen ]] || refuse "battery takes one name, not both '$chosen' and '$1'"
        [[ " ${rows[*]} " == *" $1 "* ]] || refuse "there is no long run '$1'; there are ${rows[*]}"
        chosen=$1
        ;;
    esac
    shift
  done
  if ! has_sort refused; then
    [[ $chosen != refused ]] || refuse 'where io_uring is refused hubs are on epoll, so not on uring'
    unset 'rows[-1]'
  fi
  [[ -z $chosen ]] || rows=("$chosen")
  trap 'exit 130' INT  # also where the program that is interrupted ends in another way
  install_missing "${packages_to_build[@]}" "${packages_to_test[@]}"
  configure build
  compile build  # all of it: it is no use to fail in the last row

  local row held table=
  local -i fell_short=0 begin seconds_allowed=86400
  for row in "${rows[@]}"; do
    say "long run $row"
    held=held begin=$SECONDS
    long_run "$row" || held='fell short' fell_short=1
    table+=$(printf '%-24s %6d s   %s' "$row" $((SECONDS - begin)) "$held")$'\n'
  done
  printf '%s' "$table"
  [[ $fell_short -eq 0 ]]
}

# long_run NAME: false where something fell short.
long_run() {
  local -i fell_short=0
  local suite refusals_to_run=()
  case $1 in
    races)
      ANNULET_RACE_ROUNDS=100000 run_tests io_races || fell_short=1
      ANNULET_RACE_ROUNDS=100000 run_tests races || fell_short=1
      ANNULET_RACE_ROUNDS=100000 run_tests file_races || fell_short=1
      ANNULET_RACE_ROUNDS=10000 run_tests child_races || fell_short=1
      ;;
    wait_races) ANNULET_RACE_ROUNDS=3400000 run_tests wait_races || fell_short=1 ;;  # each of three cases
    close) ANNULET_CLOSE_ROUNDS=100000 run_tests io_close || fell_short=1 ;;
    churn) ANNULET_CHURN_CONNECTIONS=100000 run_tests io_churn || fell_short=1 ;;
    oracle) ANNULET_ORACLE_OPERATIONS=10000000 run_tests oracle || fell_short=1 ;;
    models) ANNULET_MODEL_STEPS=100000000 run_tests primitives_model || fell_short=1 ;;
    fibers) ANNULET_FIBERS=1000000 run_tests stack_memory || fell_short=1 ;;
    forks) ANNULET_FORKS=1000 run_tests fork || fell_short=1 ;;
    storms) ANNULET_STORM_ROUNDS=1000 ANNULET_STORM_SECONDS=60 run_tests storms || fell_short=1 ;;
    soak) ANNULET_SOAK_CONNECTIONS=4000 ANNULET_SOAK_SECONDS=1800 run_tests soak || fell_short=1 ;;
    simulation) ANNULET_SIMULATION_STEPS=100000000 run_tests simulation || fell_short=1 ;;
    timing) ANNULET_TIMING_ROUNDS=10000 run_tests timing || fell_short=1 ;;
    drop_ins)
      ANNULET_DROP_IN_KILLS=100000 run_tests drop_in_kills || fell_short=1
      ANNULET_ORACLE_OPERATIONS=10000000 run_tests drop_in_oracle || fell_short=1
      ANNULET_SIGNALS=100000 run_tests drop_in_signals || fell_short=1
      ANNULET_SIGNALS=100000 run_tests hub_call_signals || fell_short=1
      ;;
    drop_in_scenes)
      drop_in_scenes || fell_short=1
      start_busy_loops
      drop_in_scenes || fell_short=1
      end_busy_loops
      ;;
    ported) ANNULET_PORTED_TRANSFERS=500 ANNULET_PORTED_ROUNDS=20 run_tests ported || fell_short=1 ;;
    unchanged) ANNULET_UNCHANGED_ALONE=1 run_tests unchanged || fell_short=1 ;;
    repeat) run_tests selector --repeat 100 || fell_short=1 ;;
    repeat_busy)
      start_busy_loops
      run_tests selector --repeat 100 || fell_short=1
      end_busy_loops
      ;;
    suites_busy)
      start_busy_loops
      for suite in hub watch signal_set close io descriptor oracle; do
        run_tests "$suite" --repeat 5 || fell_short=1
      done
      end_busy_loops
      ;;
    refused)
      refusals_to_run=("${refusals[@]}")
      local sorts=(refused)
      run_tests || fell_short=1
      ;;
  esac
  [[ $fell_short -eq 0 ]]
}

drop_in_scenes() {
  local -i fell_short=0 lanes=4  # they wait, for the most part
  local scenes
  for scenes in poll select epoll sleep io read write edges io_edges socket_edges sending_edges large_edges \
    file_edges signal_edges signals memory handlers jobs; do
    ANNULET_DROP_IN_ROUNDS=100 run_tests "drop_in_$scenes" || fell_short=1
  done
  [[ $fell_short -eq 0 ]]
}

busy_loops=()  # their process ids

# One for each core. They end with this shell, also where it is killed and can do nothing about it.
start_busy_loops() {
  local -i core cores turn
  cores=$(nproc)
  trap end_busy_loops EXIT
  for ((core = 0; core < cores; core++)); do
    while kill -0 $$ 2>/dev/null; do
      for ((turn = 0; turn < 100000; turn++)); do :; done
    done &
    busy_loops+=($!)
  done
}

end_busy_loops() {
  [[ ${#busy_loops[@]} -gt 0 ]] || return 0
  kill "${busy_loops[@]}" 2>/dev/null || true
  wait "${busy_loops[@]}" 2>/dev/null || true
  busy_loops=()
}
