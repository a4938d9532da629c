// Command peers-go is one node of hashicorp/raft with raft-wal, for the comparison with quorate. It answers questions on
// stdin until that ends; answers begin with "= ", failures with "! "; logs go to stderr.
//
//	facts                               = leads=BOOLEAN term=N applied=N
//	load IN_FLIGHT BYTES WARM SECONDS   = ops=N seconds=S p50_us=... p99_us=... p999_us=... max_us=...
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// closePatience is how long closing may take once nobody asks any more; then the process ends anyway.
const closePatience = 10 * time.Second

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "peers-go hashicorp INDEX PORTS DIR FAST")
		os.Exit(2)
	}
	if err := run(os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(index, ports, dir string) error {
	number, err := strconv.Atoi(index)
	if err != nil {
		return err
	}
	var addresses []string
	for _, node := range strings.Split(ports, ",") {
		addresses = append(addresses, "127.0.0.1:"+strings.Split(node, "/")[0])
	}
	node, err := start(number, addresses, dir)
	if err != nil {
		return err
	}
	fmt.Printf("= pid=%d\n", os.Getpid())
	for question := range questions() {
		answer, err := node.answer(strings.Fields(question))
		if err != nil {
			answer = "! " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(answer)
	}
	return node.close()
}

// questions are the lines of stdin, read beside the work: its end must be seen in the middle of a run, too.
func questions() <-chan string {
	lines := make(chan string, 16)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			lines <- in.Text()
		}
		close(lines)
		time.Sleep(closePatience)
		fmt.Fprintln(os.Stderr, "The node did not close in", closePatience)
		os.Exit(1)
	}()
	return lines
}

func (node *node) answer(words []string) (string, error) {
	switch {
	case len(words) == 1 && words[0] == "facts":
		return fmt.Sprintf("= leads=%t term=%d applied=%d", node.leads(), node.term(), node.machine.applied.Load()), nil
	case len(words) == 5 && words[0] == "load":
		var numbers [4]float64
		for i, word := range words[1:] {
			number, err := strconv.ParseFloat(word, 64)
			if err != nil {
				return "", err
			}
			numbers[i] = number
		}
		seconds := func(number float64) time.Duration { return time.Duration(number * float64(time.Second)) }
		return node.load(int(numbers[0]), int(numbers[1]), seconds(numbers[2]), seconds(numbers[3]))
	default:
		return "", fmt.Errorf("there is no question %v", words)
	}
}
