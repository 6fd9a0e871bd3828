# The long runs of ./dev, for hours. Part of it, and not run by itself.

# What each row of the battery holds, and at which figure. docs/reliability.md says what is promised by it.
long_runs=(
  'races|100,000 rounds of each race of two ends of a call, 10,000 of those with a child'
  'wait_races|10,200,000 races of an event, a deadline and a kill'
  'close|1,000,000 closes and reuses of numbers that are waited for'
  'churn|100,000 connections, and nothing left of them'
  'oracle|10,000,000 operations of the selector, compared with poll(2)'
  'models|100,000,000 steps of the primitives, compared with models'
  'simulation|100,000,000 steps on a simulated kernel'
  'storms|1,000 rounds of 19,700 events at once, 10,000 signals a second for 60 s'
  'faults|10,000,000 calls on a kernel that refuses, cuts short and ends early'
  'allocations|each allocation of each public call is refused in turn'
  'exhaustion|servers with 32 descriptors'
  'refused|io_uring refused as filters and old kernels do, for hub, watches and selector'
  'forks|1,000 forks with 1,000 waits in flight'
  'stacks|1,000 overflows; 1,000,000 guarded fibers at once'
  'soak|4,000 connections through a network that slices, stalls and cuts, for 30 minutes'
  'sanitizers|every test with the address, undefined and thread sanitizers'
  'timing|10,000 rounds of timers, on an idle machine'
  'drop_ins|100,000 kills and guards a call, 10,000,000 operations compared, 100,000 signals'
  'drop_in_scenes|100 rounds of each call, made plainly and parked, without and beside busy loops'
  'ported|100 of each ported program, 500 transfers, 20 rounds'
  'unchanged|300 calls of libraries that nobody changed at once, and each alone'
  'repeat|the suite of the selector 100 times'
  'repeat_busy|the same beside a busy loop on each core'
  'suites_busy|seven suites 5 times beside a busy loop on each core'
)
space_for_logs=200000  # KiB

# is_row NAME
is_row() { [[ " ${long_runs[*]%%|*} " == *" $1 "* ]]; }

battery() {
  local chosen= entry
  local sorts=(any ring epoll refused)  # the ladder is for one row, and every ./dev test
  while [[ $# -gt 0 ]]; do
    case $1 in
      --engine)
        restrict_to "${2-}"
        shift
        ;;
      *)
        [[ -z $chosen ]] || refuse "battery takes one name, not both '$chosen' and '$1'"
        is_row "$1" || refuse "there is no long run '$1'; there are ${long_runs[*]%%|*}"
        chosen=$1
        ;;
    esac
    shift
  done
  if ! has_sort refused && [[ $chosen == refused ]]; then
    refuse 'where io_uring is refused hubs are on epoll, so not on uring'
  fi
  trap 'exit 130' INT  # also where the program that is interrupted ends in another way
  install_missing "${packages_to_build[@]}" "${packages_to_test[@]}"
  [[ $(df --output=avail -k . | tail -n 1) -ge $space_for_logs ]] ||
    fail "the logs of long runs take up to $((space_for_logs / 1000)) MB, and there is less here"
  configure build
  compile build  # all of it: it is no use to fail in the last row

  local table=
  local -i rows_fell_short=0
  for entry in "${long_runs[@]}"; do
    [[ -z $chosen || ${entry%%|*} == "$chosen" ]] || continue
    [[ ${entry%%|*} != refused ]] || has_sort refused || continue
    hold_row "${entry%%|*}" "${entry#*|}"
  done
  printf '%s' "$table"
  [[ $rows_fell_short -eq 0 ]]
}

# hold_row NAME FIGURE: adds a line to the table. What could not be run here was not held.
hold_row() {
  local held=held
  local -i begin=$SECONDS seconds_allowed=86400 all_passed=0 all_failed=0 all_skipped=0
  say "long run $1: $2"
  if ! long_run "$1"; then
    held='fell short'
    if [[ $all_passed -eq 0 && $all_failed -eq 0 && $all_skipped -gt 0 ]]; then
      held=skipped
    else
      rows_fell_short=1
    fi
  elif [[ $all_skipped -gt 0 ]]; then
    held="held, but for $all_skipped skipped"
  fi
  table+=$(printf '%-15s %6d s  %-12s %s' "$1" $((SECONDS - begin)) "$held" "$2")$'\n'
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
    simulation) ANNULET_SIMULATION_STEPS=100000000 run_tests simulation || fell_short=1 ;;
    storms) ANNULET_STORM_ROUNDS=1000 ANNULET_STORM_SECONDS=60 run_tests storms || fell_short=1 ;;
    faults)
      ANNULET_FAULT_OPERATIONS=10000000 run_tests faults || fell_short=1
      run_tests hub_faults || fell_short=1
      ;;
    allocations) run_tests allocation_sweep || fell_short=1 ;;
    exhaustion) run_tests echo_servers || fell_short=1 ;;
    refused)
      refusals_to_run=("${refusals[@]}")
      local sorts=(refused ladder)
      run_tests || fell_short=1
      ;;
    forks) ANNULET_FORKS=1000 run_tests fork || fell_short=1 ;;
    stacks)
      run_tests stack_overflow || fell_short=1
      ANNULET_FIBERS=1000000 run_tests stack_memory || fell_short=1
      ;;
    soak) ANNULET_SOAK_CONNECTIONS=4000 ANNULET_SOAK_SECONDS=1800 run_tests soak || fell_short=1 ;;
    sanitizers)
      (find_bugs asan) || fell_short=1
      (find_bugs tsan) || fell_short=1
      ;;
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
