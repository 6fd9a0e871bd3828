// A million parked goroutines, for park_1m_bench.cpp. Reads lines: "park N" makes N goroutines that wait for
// a channel, and is answered "N" when all do; "end" lets them go on, and is answered with how many went.
package main

import (
	"bufio"
	"fmt"
	"os"
	"sync"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	end := make(chan struct{})
	var parked, ended sync.WaitGroup
	count := 0
	var guard sync.Mutex
	for lines.Scan() {
		var wanted int
		if lines.Text() == "end" {
			close(end)
			ended.Wait()
			fmt.Println(count)
		} else if _, err := fmt.Sscanf(lines.Text(), "park %d", &wanted); err == nil {
			parked.Add(wanted)
			ended.Add(wanted)
			for i := 0; i < wanted; i++ {
				go func() {
					parked.Done()
					<-end
					guard.Lock()
					count++
					guard.Unlock()
					ended.Done()
				}()
			}
			parked.Wait()
			fmt.Println(wanted)
		} else {
			panic("park: no such line: " + lines.Text())
		}
	}
}
