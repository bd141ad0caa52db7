package main

import (
	"bytes"
	"io"
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
	var then io.ReaderAt = strings.NewReader("")
	if q.ChangeId != "*" {
		base, known := s.images[q.ChangeId]
		if !known || !strings.HasPrefix(q.ChangeId, s.generation[current.diskUuid]+"/") {
			return nil, &types.FileFault{File: current.path}
		}
		file, err := os.Open(base.path)
		if err != nil {
			return nil, &types.FileFault{File: base.path}
		}
		defer file.Close()
		then = file
	}
	end := q.StartOffset + piece
	if end > info.Size() {
		end = info.Size()
	}
	return &types.DiskChangeInfo{
		StartOffset: q.StartOffset, Length: end - q.StartOffset, ChangedArea: differing(now, then, q.StartOffset, end),
	}, nil
}

func differing(now, then io.ReaderAt, start, end int64) []types.DiskChangeExtent {
	var areas []types.DiskChangeExtent
	a, b := make([]byte, grain), make([]byte, grain)
	for at := start; at < end; at += grain {
		n, _ := now.ReadAt(a, at)
		m, _ := then.ReadAt(b, at)
		for i := m; i < len(b); i++ {
			b[i] = 0
		}
		length := int64(n)
		if at+length > end {
			length = end - at
		}
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
