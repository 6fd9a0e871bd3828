# How ./dev runs test programs, and what it says of them. Part of it, and not run by itself.

build=build  # where the tests are built that are run
tool=()      # what they are run by; REPORT stands for where it puts what it finds, FLAGS for the program's
declare -A exclude=() tool_options=()  # of a program: cases to be left out, as doctest takes them

# command_of RUN: sets the array `command`.
command_of() {
  local name=${1%@*} how=
  [[ $1 != *@* ]] || how=${1#*@}
  command=("${tool[@]//REPORT/$root/$build/logs/$1.report}")
  command=("${command[@]//FLAGS/${tool_options[$name]-}}" "$build/tests/$name")
  case $how in
    '') [[ ! -e tests/$name.py ]] || command=(python3 "tests/$name.py" "$build") ;;
    epoll) command=(env ANNULET_ENGINE=epoll "${command[@]}") ;;
    *:*) command=("$build/tests/refuse" "${how%:*}" "${how#*:}" "${command[@]}") ;;
    *) command=(env ANNULET_ENGINE=uring "ANNULET_RING_MODE=$how" "${command[@]}") ;;
  esac
  [[ -z ${exclude[$name]-} ]] || command+=("--test-case-exclude=${exclude[$name]}")
}

# run_program RUN LOG: leaves in LOG.result how many passed, failed and were skipped and the microseconds that
# it took, and in the lines after that why it failed.
run_program() {
  local name=$1 log=$2 report=$build/logs/$1.report command
  command_of "$name"
  rm -f -- "$report".* "$log.result"
  local -i status=0 begin=${EPOCHREALTIME/./}
  {
    timeout --foreground --kill-after=10 "$seconds_allowed" "${command[@]}" >"$log" 2>&1 </dev/null {ends}>&-
  } 2>/dev/null || status=$?  # how it died is said below
  local -i took=$((${EPOCHREALTIME/./} - begin))

  # The summary as doctest prints it, and the scripts with it. A program that died has none, or one that is
  # too good. A case that cannot run here passes, and says so in a note.
  local -i good=0 bad=0 left_out=0 could_not
  local summary='test cases: +([0-9]+) \| +([0-9]+) passed \| +([0-9]+) failed \| +([0-9]+) skipped'
  if [[ $(grep -a 'test cases:' "$log" | tail -n 1) =~ $summary ]]; then
    good=${BASH_REMATCH[2]} bad=${BASH_REMATCH[3]} left_out=${BASH_REMATCH[4]}
  fi
  local why=
  # Every report is a failure, also of a child whose end nobody looks at.
  if grep -qsvE '^--[0-9]+-- ' "$report".*; then  # but for valgrind's remarks
    cat -- "$report".* >>"$log"
    why="made a report ($report.*)"
  elif [[ $status -eq 124 ]]; then
    why="did not end within $seconds_allowed s"
  elif [[ $status -gt 128 ]]; then
    why="died of SIG$(kill -l $((status - 128)))"
  elif [[ $bad -gt 0 ]]; then
    why="reported $bad failed"
  elif [[ $status -ne 0 ]]; then
    why="ended with status $status"
  elif [[ $good -eq 0 ]]; then
    why='ran no test'
  fi
  if [[ -n $why && $bad -eq 0 ]]; then bad=1; fi
  could_not=$(grep -ac '^note: skipped: ' "$log" || true)
  local counts="$((good - could_not)) $bad $((left_out + could_not)) $took"
  printf '%s\n' "$counts" ${why:+"$name $why"} >"$log.result"
}

# take_in RUN LOG: what run_program said of it. Adds to passed, failed, skipped and failures, and to
# microseconds[RUN].
take_in() {
  local name=$1 log=$2 why=
  local -i good bad left_out took
  if ! {
    read -r good bad left_out took && { read -r why || true; }
  } 2>/dev/null <"$log.result"; then
    good=0 bad=1 left_out=0 took=0 why="$name was not seen to its end"
  fi
  rm -f -- "$log.result"
  passed+=good failed+=bad skipped+=left_out
  microseconds[$name]=$((${microseconds[$name]:-0} + took))
  if [[ -n $why ]]; then
    tail -n 100 -- "$log"
    say "$why (whole log: $log)"
    local signs='TEST CASE:|ERROR:|WARNING:|SUMMARY:|FAILED:'
    failures+=("$why" "$(grep -aE -A 5 "$signs" -- "$log" | head -n 30 || true)")
  fi
  if [[ $repeat -eq 1 ]]; then
    print_seconds "$name"
    grep -a '^note: ' "$log" || true
  elif [[ $bad -eq 0 ]]; then
    rm -- "$log"
  fi
}

lanes=1  # as many are run at once, of those that do not need the machine to themselves

# run_side_by_side LANES RUN...: some of a round.
run_side_by_side() {
  local -i lanes=$1 running=0
  local run ended
  shift
  for run; do
    if [[ $running -eq lanes ]]; then
      read -r ended <&"$ends"
      take_in "$ended" "$build/logs/$ended.$round.log"
      running+=-1
    fi
    {
      trap 'printf "%s\n" "$run" >&"$ends"' EXIT  # however that comes
      run_program "$run" "$build/logs/$run.$round.log"
    } &
    running+=1
  done
  for (( ; running > 0; running--)); do
    read -r ended <&"$ends"
    take_in "$ended" "$build/logs/$ended.$round.log"
  done
}

declare -i all_passed=0 all_failed=0 all_skipped=0  # in all that was run so far

# run_all ROUNDS: each of `runs`, so many times. False where something failed, or nothing was run.
run_all() {
  mkdir -p "$build/logs"
  local -A microseconds=()
  local -i repeat=$1 passed=0 failed=0 skipped=0 round ends
  local run failures=() beside=() alone=()
  for run in "${runs[@]}"; do
    if [[ -n ${cannot_run[$run]-} ]]; then
      skipped+=repeat
      printf '%-40s note: skipped: %s\n' "${run/_test/}" "${cannot_run[$run]}"
    elif listed alone "${run%@*}"; then
      alone+=("$run")
    else
      beside+=("$run")
    fi
  done
  # Where each says that it has ended: bash's own wait for any of several may miss one.
  rm -f -- "$build/logs/ends"
  mkfifo -- "$build/logs/ends"
  exec {ends}<>"$build/logs/ends"
  rm -- "$build/logs/ends"
  for ((round = 1; round <= repeat; round++)); do
    run_side_by_side "$lanes" "${beside[@]}"
    run_side_by_side 1 "${alone[@]}"
    if [[ $repeat -gt 1 && $((round * 10 / repeat)) -gt $(((round - 1) * 10 / repeat)) ]]; then
      say "round $round of $repeat: $passed passed, $failed failed"
    fi
  done
  if [[ $repeat -gt 1 ]]; then
    for run in "${runs[@]}"; do
      [[ -n ${cannot_run[$run]-} ]] || print_seconds "$run"
    done
  fi

  exec {ends}>&-
  all_passed+=passed all_failed+=failed all_skipped+=skipped

  # Once more, where the last lines are all that anybody sees.
  if [[ $failed -gt 0 ]]; then printf '%s\n' '' 'What failed:' "${failures[@]:0:40}"; fi
  local skips=
  [[ $skipped -eq 0 ]] || skips=", $skipped skipped"
  printf '%s\n' "$passed passed, $failed failed$skips"
  [[ $failed -eq 0 && $passed -gt 0 ]]
}

print_seconds() {
  local -i tenths=$(((${microseconds[$1]} + 50000) / 100000))
  printf '%-40s %6d.%d s\n' "${1/_test/}" $((tenths / 10)) $((tenths % 10))
}
