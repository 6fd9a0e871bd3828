// skynet in Go, for skynet_bench.cpp: the same tree of goroutines, and each hands its sum to its parent
// through a channel. Reads lines "<order> <leaves>", order being depth_first or at_once; answers each with
// "<sum> <nanoseconds> <nanoseconds of processor time>". Ends with its input.
package main

import (
	"bufio"
	"fmt"
	"os"
	"syscall"
	"time"
)

const children = 10

// Each child is waited for before the next begins.
func depthFirst(parent chan<- uint64, first, leaves uint64) {
	if leaves == 1 {
		parent <- first
		return
	}
	results := make(chan uint64)
	share := leaves / children
	var sum uint64
	for i := uint64(0); i < children; i++ {
		go depthFirst(results, first+i*share, share)
		sum += <-results
	}
	parent <- sum
}

// All children begin, then they are waited for.
func atOnce(parent chan<- uint64, first, leaves uint64) {
	if leaves == 1 {
		parent <- first
		return
	}
	results := make(chan uint64)
	share := leaves / children
	for i := uint64(0); i < children; i++ {
		go atOnce(results, first+i*share, share)
	}
	var sum uint64
	for i := 0; i < children; i++ {
		sum += <-results
	}
	parent <- sum
}

func processorTime() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func main() {
	orders := map[string]func(chan<- uint64, uint64, uint64){"depth_first": depthFirst, "at_once": atOnce}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var order string
		var leaves uint64
		if _, err := fmt.Sscan(lines.Text(), &order, &leaves); err != nil || orders[order] == nil {
			panic("skynet: no such order: " + lines.Text())
		}
		root := make(chan uint64)
		processor, begin := processorTime(), time.Now()
		go orders[order](root, 0, leaves)
		sum := <-root
		fmt.Println(sum, time.Since(begin).Nanoseconds(), processorTime()-processor)
	}
}
