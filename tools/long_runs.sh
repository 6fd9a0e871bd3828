# The long runs of ./dev, for hours. Part of it, and not run by itself.

# What each row of the battery holds, and at which figure. docs/reliability.md says what is promised by it.
long_runs=(
  'races|100,000 rounds of each race of two ends of a call; 100,000 calls on files, 10,000 for children'
  'wait_races|10,200,000 races of an event, a deadline and a kill'
  'close|100,000 closes in each of 8 ways of each of 9 kinds of file, and the suites of reuse'
  'churn|100,000 connections, and nothing left of them'
  'oracle|10,000,000 operations of the selector, compared with poll(2)'
  'models|100,000,000 steps of each of 11 primitives, compared with models'
  'simulation|100,000,000 steps on a simulated kernel, over 10,000 seeds'
  'storms|1,000 rounds of 19,700 events at once; 600,000 signals, 10,000 a second'
  'faults|10,000,000 calls on a kernel that refuses them, and a ring that ends and cuts short'
  'allocations|each allocation of 58 scenes of public calls is refused in turn'
  'exhaustion|servers with 32 descriptors'
  'refused|io_uring refused as filters and old kernels do, for hub, watches and selector'
  'forks|1,000 forks with 1,000 waits in flight'
  'stacks|1,000 overflows; 1,000,000 guarded fibers at once'
  'soak|4,000 connections through a network that slices, stalls and cuts, for 30 minutes'
  'sanitizers|the tests, but for what tools/find_bugs.sh names, with three sanitizers'
  'timing|10,000 rounds of timers, on an idle machine'
  'drop_ins|100,000 kills and guards a call, 10,000,000 operations compared, 100,000 signals'
  'drop_in_scenes|100 rounds of each call, plain and parked, without and beside busy loops'
  'ported|100 of each ported program at once, 500 transfers each by libcurl, 20 rounds'
  'unchanged|300 calls of libraries that nobody changed at once, and each alone'
  'repeat|the suite of the selector 100 times'
  'repeat_busy|the same beside a busy loop on each core'
  'suites_busy|seven suites 5 times beside a busy loop on each core'
)
space_for_logs=200000  # KiB

# is_row NAME
is_row() {
  local entry
  for entry in "${long_runs[@]}"; do
    [[ ${entry%%|*} != "$1" ]] || return 0
  done
  return 1
}

battery() {
  local chosen= entry
  local sorts=("${sorts[@]}")
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
  unset "${!ANNULET_@}"  # each row has its own
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
  long_run "$1" || true  # what was run is judged
  if [[ $all_failed -gt 0 || $((all_passed + all_skipped)) -eq 0 ]]; then
    held='fell short' rows_fell_short=1
  elif [[ $all_passed -eq 0 ]]; then
    held=skipped
  elif [[ $all_skipped -gt 0 ]]; then
    held="held, but for $all_skipped skipped"
  fi
  table+=$(printf '%-15s %6d s  %-12s %s' "$1" $((SECONDS - begin)) "$held" "$2")$'\n'
}

# sanitize TOOL: in a shell of its own, for much is set otherwise there; and its counts from there.
sanitize() {
  local counts=$root/build/logs/$1.counts
  local -i good bad left_out
  mkdir -p -- "${counts%/*}"
  rm -f -- "$counts"
  (
    find_bugs "$1" || true
    printf '%s\n' "$all_passed $all_failed $all_skipped" >"$counts"
  ) || true
  read -r good bad left_out 2>/dev/null <"$counts" || good=0 bad=1 left_out=0  # it came to no end
  all_passed+=good all_failed+=bad all_skipped+=left_out
}

# long_run NAME
long_run() {
  local suite refusals_to_run=() sorts=("${sorts[@]}")
  if [[ $1 == refused ]]; then
    sorts=(refused ladder)  # whatever --engine says: it is chosen there
  else
    keep_sorts any ring epoll
  fi
  case $1 in
    races)
      ANNULET_RACE_ROUNDS=100000 run_tests io_races
      ANNULET_RACE_ROUNDS=100000 run_tests races
      ANNULET_RACE_ROUNDS=100000 run_tests file_races
      ANNULET_RACE_ROUNDS=10000 run_tests child_races
      ;;
    wait_races) ANNULET_RACE_ROUNDS=3400000 run_tests wait_races ;;  # each of three cases
    close)
      ANNULET_CLOSE_ROUNDS=100000 run_tests io_close
      for suite in close io_reuse io_dup2 duplicates; do run_tests "$suite"; done
      ;;
    churn) ANNULET_CHURN_CONNECTIONS=100000 run_tests io_churn ;;
    oracle) ANNULET_ORACLE_OPERATIONS=10000000 run_tests oracle ;;
    models) ANNULET_MODEL_STEPS=100000000 run_tests primitives_model ;;
    simulation) ANNULET_SIMULATION_STEPS=100000000 run_tests simulation ;;
    storms) ANNULET_STORM_ROUNDS=1000 ANNULET_STORM_SECONDS=60 run_tests storms ;;
    faults)
      ANNULET_FAULT_OPERATIONS=10000000 run_tests faults
      run_tests hub_faults
      ;;
    allocations) run_tests allocation_sweep ;;
    exhaustion) run_tests echo_servers ;;
    refused)
      refusals_to_run=("${refusals[@]}")
      run_tests
      ;;
    forks) ANNULET_FORKS=1000 run_tests fork ;;
    stacks)
      run_tests stack_overflow
      ANNULET_FIBERS=1000000 run_tests stack_memory
      ;;
    soak) ANNULET_SOAK_CONNECTIONS=4000 ANNULET_SOAK_SECONDS=1800 run_tests soak ;;
    sanitizers)
      sanitize asan
      sanitize tsan
      ;;
    timing) ANNULET_TIMING_ROUNDS=10000 run_tests timing ;;
    drop_ins)
      ANNULET_DROP_IN_KILLS=100000 run_tests drop_in_kills
      ANNULET_ORACLE_OPERATIONS=10000000 run_tests drop_in_oracle
      ANNULET_SIGNALS=100000 run_tests drop_in_signals
      ANNULET_SIGNALS=100000 run_tests hub_call_signals
      ;;
    drop_in_scenes)
      drop_in_scenes
      start_busy_loops
      drop_in_scenes
      end_busy_loops
      ;;
    ported) ANNULET_PORTED_TRANSFERS=500 ANNULET_PORTED_ROUNDS=20 run_tests ported ;;
    unchanged) ANNULET_UNCHANGED_ALONE=1 run_tests unchanged ;;
    repeat) run_tests selector --repeat 100 ;;
    repeat_busy)
      start_busy_loops
      run_tests selector --repeat 100
      end_busy_loops
      ;;
    suites_busy)
      start_busy_loops
      for suite in hub watch signal_set close io descriptor oracle; do
        run_tests "$suite" --repeat 5
      done
      end_busy_loops
      ;;
  esac
}

drop_in_scenes() {
  local -i lanes=4  # they wait, for the most part
  local scenes
  for scenes in poll select epoll sleep io read write edges io_edges socket_edges sending_edges large_edges \
    file_edges signal_edges signals memory; do
    ANNULET_DROP_IN_ROUNDS=100 run_tests "drop_in_$scenes"
  done
  for scenes in handlers jobs; do run_tests "drop_in_$scenes" --repeat 100; done
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
