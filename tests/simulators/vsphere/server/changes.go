package main

import (
	"bytes"
	"math"
	"os"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const grain = 64 << 10 // bytes that changed block tracking sees as one

// changed compares a snapshot's disk with an earlier one, grain by grain, up to piece bytes per answer.
// The changeId "*" asks for what is in use: here, what isn't zero.
func (s *diskShelf) changed(q *types.QueryChangedDiskAreas, piece int64) (*types.DiskChangeInfo, types.BaseMethodFault) {
	if q.Snapshot == nil {
		return nil, &types.InvalidArgument{InvalidProperty: "snapshot"}
	}
	if simulator.Map.Get(*q.Snapshot) == nil {
		return nil, &types.ManagedObjectNotFound{Obj: *q.Snapshot}
	}
	current, known := s.images[imageKey(*q.Snapshot, q.DeviceKey)]
	if !known {
		return nil, &types.InvalidArgument{InvalidProperty: "deviceKey"}
	}
	now, err := os.Open(current.path)
	if err != nil {
		return nil, &types.FileFault{File: current.path}
	}
	defer now.Close()
	info, err := now.Stat()
	if err != nil || q.StartOffset < 0 || q.StartOffset >= info.Size() {
		return nil, &types.InvalidArgument{InvalidProperty: "startOffset"}
	}
	var then *os.File // nil: zeros
	if q.ChangeId != "*" {
		base, known := s.images[q.ChangeId]
		if !known || !strings.HasPrefix(q.ChangeId, s.generation[current.diskUuid]+"/") {
			return nil, &types.FileFault{File: current.path}
		}
		if then, err = os.Open(base.path); err != nil {
			return nil, &types.FileFault{File: base.path}
		}
		defer then.Close()
	}
	end := q.StartOffset + piece
	if end > info.Size() {
		end = info.Size()
	}
	return &types.DiskChangeInfo{
		StartOffset: q.StartOffset, Length: end - q.StartOffset, ChangedArea: differing(now, then, q.StartOffset, end),
	}, nil
}

func differing(now, then *os.File, start, end int64) []types.DiskChangeExtent {
	var areas []types.DiskChangeExtent
	a, b := make([]byte, grain), make([]byte, grain)
	for at := start; at < end; at += grain {
		if written := min(nextData(now, at), nextData(then, at)); written >= at+grain { // holes in both
			at = written - written%grain
			if at >= end {
				break
			}
		}
		length := min(readPadded(now, a, at), end-at)
		readPadded(then, b, at)
		if bytes.Equal(a[:length], b[:length]) {
			continue
		}
		if last := len(areas) - 1; last >= 0 && areas[last].Start+areas[last].Length == at {
			areas[last].Length += length
		} else {
			areas = append(areas, types.DiskChangeExtent{Start: at, Length: length})
		}
	}
	return areas
}

// nextData is where, from at on, a file has something that isn't a hole; far away if nowhere.
func nextData(file *os.File, at int64) int64 {
	const seekData = 3
	if file != nil {
		if found, err := file.Seek(at, seekData); err == nil {
			return found
		}
	}
	return math.MaxInt64 - grain
}

func readPadded(file *os.File, into []byte, at int64) int64 {
	n := 0
	if file != nil {
		n, _ = file.ReadAt(into, at)
	}
	for i := n; i < len(into); i++ {
		into[i] = 0
	}
	return int64(n)
}

func min(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}
