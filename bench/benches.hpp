// The workloads. Each takes the harness, holds its contests, and leaves nothing behind on the thread: no hub
// and no descriptor, so that any of them may fork or make a hub of its own.
#pragma once

namespace bench {

class harness;

void bench_switch(harness& run);
void bench_spawn_join(harness& run);
void bench_skynet(harness& run);
void bench_ping_pong(harness& run);
void bench_park_1m(harness& run);
void bench_timers_1m(harness& run);
void bench_wake(harness& run);
void bench_sel_active(harness& run);
void bench_sel_park(harness& run);
void bench_sel_scale(harness& run);
void bench_sel_churn(harness& run);
void bench_sel_modify(harness& run);
void bench_sel_zero(harness& run);
void bench_drop_in(harness& run);
void bench_echo(harness& run);
void bench_echo_idle(harness& run);

void measure_floors(harness& run);

}  // namespace bench
