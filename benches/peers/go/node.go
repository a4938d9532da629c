package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// batchMax is how many commands the leader puts into its log, and sends, at once: the most that the library takes.
const batchMax = 1024

// segmentBytes is the length of a file of the log.
const segmentBytes = 64 * 1024 * 1024

type node struct {
	raft      *raft.Raft
	log       *wal.WAL
	transport *raft.NetworkTransport
	machine   *counter
}

func start(index int, addresses []string, dir string) (*node, error) {
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
		return nil, err
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: "raft", Level: hclog.Warn, Output: os.Stderr})
	log, err := wal.Open(filepath.Join(dir, "log"), wal.WithSegmentSize(segmentBytes), wal.WithLogger(logger))
	if err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 1, logger)
	if err != nil {
		return nil, err
	}
	transport, err := raft.NewTCPTransportWithLogger(addresses[index], nil, 4, 10*time.Second, logger)
	if err != nil {
		return nil, err
	}
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(strconv.Itoa(index))
	config.Logger = logger
	config.BatchApplyCh = true
	config.MaxAppendEntries = batchMax
	config.HeartbeatTimeout = 2 * time.Second
	config.ElectionTimeout = 2 * time.Second
	config.LeaderLeaseTimeout = time.Second
	// No snapshot while measuring.
	config.SnapshotInterval = time.Hour
	config.NoLegacyTelemetry = true
	var members raft.Configuration
	for i, address := range addresses {
		members.Servers = append(members.Servers,
			raft.Server{ID: raft.ServerID(strconv.Itoa(i)), Address: raft.ServerAddress(address)})
	}
	if err := raft.BootstrapCluster(config, log, log, snapshots, transport, members); err != nil {
		return nil, err
	}
	machine := &counter{}
	library, err := raft.NewRaft(config, machine, log, log, snapshots, transport)
	if err != nil {
		return nil, err
	}
	return &node{library, log, transport, machine}, nil
}

func (node *node) leads() bool { return node.raft.State() == raft.Leader }

func (node *node) term() uint64 { return node.raft.CurrentTerm() }

func (node *node) close() error {
	return errors.Join(node.raft.Shutdown().Error(), node.transport.Close(), node.log.Close())
}

// counter is the state machine: it counts.
type counter struct{ applied atomic.Uint64 }

func (counter *counter) Apply(*raft.Log) interface{} {
	counter.applied.Add(1)
	return nil
}

func (counter *counter) ApplyBatch(entries []*raft.Log) []interface{} {
	commands := uint64(0)
	for _, entry := range entries {
		if entry.Type == raft.LogCommand {
			commands++
		}
	}
	counter.applied.Add(commands)
	return make([]interface{}, len(entries))
}

func (counter *counter) Snapshot() (raft.FSMSnapshot, error) {
	return nil, errors.New("no snapshot is asked for while measuring")
}

func (counter *counter) Restore(io.ReadCloser) error {
	return errors.New("there is no snapshot to restore")
}
