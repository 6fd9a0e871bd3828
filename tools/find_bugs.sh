# ./dev asan, tsan and valgrind. Part of ./dev, and not run by itself.
#
# A report of theirs is a failure of the program that made it, and none is suppressed. What a tool cannot hold
# is left out here, and nowhere else.

# Tools, programs, what is not run of them ('all', or a pattern of cases: '*' is any text, '?' any character,
# as for a comma) or not asked of them (in parentheses) or how they are run (an option of the tool), and why.
not_held=(
  'asan tsan|stack_overflow_test|all|the sanitizer has SIGSEGV, so there is no handler of ours'
  'asan tsan|overflow_handler_test|all|the sanitizer has SIGSEGV, so there is no handler of ours'
  'asan tsan|overflow_fork_test|all|the sanitizer has SIGSEGV, so there is no handler of ours'
  'asan tsan|hub_dump_test|the signal may come while*|frames are larger, and no signal stack is ours'
  'asan tsan|stack_signal_test|*smallest stack runs*|instrumented frames are larger than the room for them'
  'asan tsan|stack_signal_test|whatever callable*|instrumented frames are larger than the room for them'
  'asan tsan|stack_fallback_test|an overflow*|the sanitizer has SIGSEGV, so there is no handler of ours'
  'asan tsan|stack_fallback_test|at the mapping limit*|it maps memory of its own, and dies of the limit'
  'asan tsan|stack_fallback_test|a slab*|mappings are counted, and the sanitizer makes some for fibers'
  'asan tsan|stack_test|at the mapping limit*|it maps memory of its own, and dies of the limit'
  'asan tsan|stack_test|at a limit*|it maps memory of its own, and dies of the limit'
  'asan tsan|hub_limits_test|where no memory*|it maps memory of its own, and dies where it may not'
  'tsan|fork_test resolve_test|die_after_fork=0|else it ends each child of several threads that starts one'
  'asan|worker_pool_shortage_test|all|it maps memory of its own for a thread, and dies where there is none'
  'tsan|fork_threads_test|report_thread_leaks=0|a child knows of threads that only its parent has'
  'asan|fork_threads_test process_regressions_test|detect_leaks=0|it looks for threads that only a parent has'
  'asan tsan|process_regressions_test|where no thread*|it maps memory of its own, and dies of the limit'
  'asan tsan|resolve_test|where no thread*|it maps memory of its own, and dies of the limit'
  'asan tsan|echo_servers_test|an echo server keeps*|a sanitizer has memory of its own for each buffer'
  'asan|simulation_test|ten planted bugs*|it ends a life that leaves a frame early, and says so itself'
  'asan tsan|drop_in_large_edges_test|a size that only*|it looks at all the memory that a call names'
  'asan tsan|timing_test|all|bounds in real time'
  'asan tsan|unchanged_test unchanged_libevent_test unchanged_libuv_test
    unchanged_loops_test|all|a sanitizer has the standard names, and nobody asks libannulet-posix'
  'asan tsan|races_test io_races_test io_races_accept_test io_races_line_test file_races_test child_races_test
    wait_races_test|(share of each outcome)|the racers meet at other times than in a plain build'
  'tsan|descriptor_ready_test|a receive after*|it makes system calls of its own, and all are counted'
  'tsan|descriptor_ready_test|what is there*|it makes system calls of its own, and all are counted'
  'tsan|hub_call_signals_test|a handler may fault*|it dies where a handler faults, without annulet as well'
  'tsan|hub_call_signals_test|a child that a handler*|it calls handlers with all signals blocked'
  'tsan|drop_in_edges_test|what others write*|they do so on purpose'
  'tsan|drop_in_edges_test|nor have events that others ask*|they do so on purpose'
  'tsan|drop_in_jobs_test|a job of the background blocks*|it keeps handlers waiting in calls it does not know'
  'tsan|drop_in_handlers_test|all|it keeps handlers waiting in calls it does not know'
  'tsan|confined_test|all|a thread of its own asks for the time by a call that is not listed'
  'tsan|selector_cost_test|all|it makes system calls of its own, and all are counted'
  'asan tsan|io_churn_test|(resident memory, mappings)|a sanitizer has memory of its own for each fiber'
  'asan tsan|ported_test|(slices, lateness)|bounds in real time'
  'asan tsan|storms_test|(how many signals a second)|bounds in real time'
  'tsan|storms_test|(that each signal is handled)|of those that come while it is busy it keeps one'
  'asan tsan|stack_memory_test|after a burst*|a sanitizer has memory of its own for each fiber'
  'asan tsan|stack_memory_test|one deep*|a sanitizer has memory of its own for each stack'
  'asan tsan|stack_memory_test|stacks that are*|a sanitizer has memory of its own for each fiber'
  'asan tsan|stack_memory_test|trim_stacks*|a sanitizer has memory of its own for each fiber'
  'asan tsan|stack_memory_test|how far*|frames are larger, and partly elsewhere'
  'asan tsan|stack_memory_test|a stack that*|frames are larger, and partly elsewhere'
  'asan tsan|stack_memory_test|crowds of fibers*|a sanitizer has memory of its own for each fiber'
)

# Where a case takes the number of its rounds from the environment, fewer: each takes 5 to 20 times as long.
fewer_rounds=(
  ANNULET_CHURN_CONNECTIONS=1600
  ANNULET_CLOSE_AT_ONCE_ROUNDS=4000
  ANNULET_CLOSE_ROUNDS=200
  ANNULET_FAULT_OPERATIONS=20000
  ANNULET_MESSAGES=20000
  ANNULET_MODEL_STEPS=20000
  ANNULET_ORACLE_OPERATIONS=40000
  ANNULET_POSTS=8000
)

# What valgrind runs: it takes 20 to 50 times as long. On a ring version 3.19 hangs in file_test.
programs_for_valgrind=(
  cancellation_test
  condition_variable_test
  deadlock_test
  event_test
  fiber_group_test
  fiber_local_test
  fiber_misuse_test
  fiber_test
  mutex_test
  queue_test
  scheduler_end_test
  scheduler_hazards_test
  scope_test
  semaphore_test
  shared_mutex_test
  timeout_test
  wait_any_test
  descriptor_test@epoll
  file_test@epoll
  future_test@epoll
  hub_test@epoll
  io_test@epoll
  offload_test@epoll
  selector_test@epoll
  signal_set_test@epoll
)

packages_to_sanitize=(clang-19 libclang-rt-19-dev llvm-19)
clang_libraries=/usr/lib/llvm-19/lib/clang/19/lib/linux

# Sets what is built with the tool, and how programs are run by it. Clang compiles for them in half the time,
# and GCC 12's library for races takes 0.4 ms a fiber, forty times as much.
choose_tool() {
  build=build-$1
  packages=("${packages_to_build[@]}" "${packages_to_test[@]}" "${packages_to_sanitize[@]}")
  options=(-Doptimization=1 -Db_lundef=false -Dwerror=false)  # warnings are the plain build's
  export ASAN_SYMBOLIZER_PATH=/usr/bin/llvm-symbolizer-19
  case $1 in
    asan)
      export CXX=clang++-19
      # Not whether an object is of its type: to look at one it makes a pipe, and each is called wrong where
      # a test has taken all descriptors away.
      options+=(-Db_sanitize=address,undefined -Dcpp_args=-fno-sanitize=vptr)
      tool=(env ASAN_OPTIONS=log_path=REPORT:detect_stack_use_after_return=1:detect_leaks=1:FLAGS
        UBSAN_OPTIONS=log_path=REPORT:halt_on_error=1:print_stacktrace=1)
      ;;
    tsan)
      export CXX=clang++-19
      # As a shared library: the static one does not let tests count what is allocated.
      options+=(-Db_sanitize=thread "-Dcpp_link_args=-shared-libsan -Wl,-rpath=$clang_libraries")
      tool=(env TSAN_OPTIONS=log_path=REPORT:external_symbolizer_path=$ASAN_SYMBOLIZER_PATH:FLAGS)
      ;;
    valgrind)
      packages=("${packages_to_build[@]}" valgrind)
      options=(-Dvalgrind=true)
      # Without turns a thread that computes keeps the others out, for it runs one at a time.
      tool=(valgrind --quiet --fair-sched=yes --error-exitcode=99 --log-file=REPORT.%p)
      ;;
  esac
}

# not_held_by TOOL: a line for each program: its name, what is not run of it, and why.
not_held_by() {
  local entry tools programs what why program
  for entry in "${not_held[@]}"; do
    IFS='|' read -r -d '' tools programs what why <<<"$entry" || true
    [[ " $tools " == *" $1 "* ]] || continue
    for program in $programs; do
      printf '%s\n' "$program|$what|${why%$'\n'}"
    done
  done
}

# leave_out TOOL: takes what it cannot hold from `runs`, and tells it of the rest.
leave_out() {
  local program what why run kept=()
  while IFS='|' read -r program what why; do
    [[ " ${runs[*]} " == *" $program"[\ @]* ]] || continue
    printf '%-40s note: %s: %s\n' "${program/_test/}" "$what" "$why"
    case $what in
      '('*) ;;  # the program sees to that
      all) exclude[$program]=all ;;
      *=*) tool_options[$program]=$what ;;
      *) exclude[$program]+=${exclude[$program]:+,}$what ;;
    esac
  done < <(not_held_by "$1")
  for run in "${runs[@]}"; do
    [[ ${exclude[${run%@*}]-} == all ]] || kept+=("$run")
  done
  runs=("${kept[@]}")
}

# Of each case that is left out, that there is one: it may have another name by now.
check_left_out() {
  local program what why
  while IFS='|' read -r program what why; do
    [[ $what != all && $what != *=* && $what != '('* ]] || continue
    if "$build/tests/$program" --count "--test-case=$what" | grep -q ': 0$'; then
      fail "$program has no case '$what' to be left out"
    fi
  done < <(not_held_by "$1")
}

# Memcheck's word for stacks that nobody has told it of; the build directory is given.
speaks_of_switches() {
  local said
  said=$(valgrind "$1/tests/mutex_test" 2>&1) || true
  [[ $said == *'client switching stacks'* ]]
}

# That it has something to say, and that registered stacks are the reason where it does not.
check_registering() {
  configure build
  compile build tests/mutex_test
  say "memcheck, with and without a library that tells it of stacks"
  speaks_of_switches build || fail 'memcheck complains of no switch, although nobody tells it of stacks'
  ! speaks_of_switches "$build" || fail 'memcheck complains of switches, although it is told of stacks'
}

# choose_runs TOOL [NAME]: sets `runs`, and `targets`.
choose_runs() {
  local name=${2-} program
  if [[ -n $name ]]; then
    program=${name%@*}
    program=${program%_test}_test
    [[ $name == "${name%@*}" || $name == *@epoll ]] || refuse "$1 runs NAME or NAME@epoll, not '$name'"
    listed '' "$program" && [[ ! -e tests/$program.py ]] || refuse "there is no test program '$program'"
    if [[ $1 == valgrind ]] && listed epoll "$program"; then name=@epoll; fi
    [[ $name == *@epoll ]] && runs=("$program@epoll") || runs=("$program")
    targets=("tests/$program")
  elif [[ $1 == valgrind ]]; then
    runs=("${programs_for_valgrind[@]}")
    targets=("${runs[@]%@*}")
    targets=("${targets[@]/#/tests/}")
  else
    collect_runs ''
    for name in "${!runs[@]}"; do
      # The scripts look at the plain build. What a filter refuses is refused to the sanitizer, too.
      [[ ! -e tests/${runs[name]}.py && ${runs[name]} != *:* ]] || unset "runs[name]"
    done
    targets=(all)
  fi
}

# find_bugs TOOL [NAME]
find_bugs() {
  [[ $# -le 2 ]] || refuse "$1 takes one name, not $(($# - 1))"
  local packages options sorts=("${sorts[@]}")
  keep_sorts any ring epoll
  choose_tool "$1"
  unset ANNULET_ENGINE ANNULET_RING_MODE
  install_missing "${packages[@]}"
  configure "$build" "${options[@]}"

  local programs=() runs=() targets=()
  local -A cannot_run=()
  choose_runs "$@"
  compile "$build" "${targets[@]}"
  if [[ $# -eq 1 ]]; then
    check_left_out "$1"
    [[ $1 == valgrind ]] || leave_out_rings
    [[ $1 != valgrind ]] || check_registering
  fi
  leave_out "$1"
  export "${fewer_rounds[@]}"
  run_all 1
}
