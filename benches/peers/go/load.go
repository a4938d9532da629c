package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// longest is the longest latency that is told apart, in nanoseconds.
const longest = 600_000_000_000

// load keeps so many commands in flight, one goroutine each, and waits for the last of them. What was completed after the
// warm-up and before the end counts.
func (node *node) load(inFlight, bytes int, warm, measured time.Duration) (string, error) {
	begin := time.Now().Add(warm)
	end := begin.Add(measured)
	histograms := make([]*hdrhistogram.Histogram, inFlight)
	failures := make([]error, inFlight)
	var writers sync.WaitGroup
	for i := range inFlight {
		histograms[i] = hdrhistogram.New(1_000, longest, 2)
		writers.Add(1)
		go func() {
			defer writers.Done()
			failures[i] = node.write(make([]byte, bytes), begin, end, histograms[i])
		}()
	}
	writers.Wait()
	all := hdrhistogram.New(1_000, longest, 2)
	for _, histogram := range histograms {
		all.Merge(histogram)
	}
	us := func(ns int64) float64 { return float64(ns) / 1e3 }
	return fmt.Sprintf("= ops=%d seconds=%.4f p50_us=%.1f p99_us=%.1f p999_us=%.1f max_us=%.1f",
		all.TotalCount(), measured.Seconds(), us(all.ValueAtQuantile(50)), us(all.ValueAtQuantile(99)),
		us(all.ValueAtQuantile(99.9)), us(all.Max())), errors.Join(failures...)
}

func (node *node) write(command []byte, begin, end time.Time, histogram *hdrhistogram.Histogram) error {
	for {
		submitted := time.Now()
		if !submitted.Before(end) {
			return nil
		}
		if err := node.raft.Apply(command, 30*time.Second).Error(); err != nil {
			return err
		}
		now := time.Now()
		if now.After(begin) && now.Before(end) {
			if err := histogram.RecordValue(min(now.Sub(submitted).Nanoseconds(), longest)); err != nil {
				return err
			}
		}
	}
}
