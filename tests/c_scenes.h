/* Scenes in C for c_test.cpp. Each returns 0, or the line of the check that failed. */
#ifndef C_SCENES_H
#define C_SCENES_H

#ifdef __cplusplus
extern "C" {
#endif

int scene_without_hub(void);
int scene_enter_and_leave(void);
int scene_options(void);
int scene_two_fibers(void);
int scene_kill(void);
int scene_kill_before_begin(void);
int scene_misuse(void);
int scene_two_who_join(void);
int scene_handles_of_a_hub_that_is_gone(void);
int scene_in_forked_child(void);

#ifdef __cplusplus
}
#endif

#endif
