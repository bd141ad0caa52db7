package main

import (
	"net/http"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// count notes a call, and for each VM that it is about: by itself, its snapshots, its tasks.
func (t *trouble) count(method *simulator.Method) {
	t.calls[method.Name]++
	about := map[string]bool{}
	t.belongs(about, method.This)
	if read, ok := method.Body.(*types.RetrievePropertiesEx); ok {
		for _, spec := range read.SpecSet {
			for _, object := range spec.ObjectSet {
				t.belongs(about, object.Obj)
			}
		}
	}
	for vm := range about {
		t.countFor(vm, method.Name)
	}
}

func (t *trouble) countFor(vm, what string) {
	if t.perVm[vm] == nil {
		t.perVm[vm] = map[string]int{}
	}
	t.perVm[vm][what]++
}

func (t *trouble) belongs(about map[string]bool, to ref) {
	switch to.Type {
	case "VirtualMachine":
		about[to.Value] = true
	case "VirtualMachineSnapshot":
		if snapshot, ok := simulator.Map.Get(to).(*simulator.VirtualMachineSnapshot); ok {
			about[snapshot.Vm.Value] = true
		}
	case "Task":
		if task, ok := simulator.Map.Get(to).(*simulator.Task); ok && task.Info.Entity != nil {
			if task.Info.Entity.Type == "VirtualMachine" {
				about[task.Info.Entity.Value] = true
			}
		}
	}
}

// countFile notes a request for a file of a VM's folder.
func (t *trouble) countFile(r *http.Request) {
	t.calls["file "+r.Method]++
	folder := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/folder/"), "/", 2)[0]
	for _, entity := range simulator.Map.All("VirtualMachine") {
		if vm := entity.(*simulator.VirtualMachine); strings.HasSuffix(vm.Config.Files.LogDirectory, "] "+folder) {
			t.countFor(vm.Self.Value, "file "+r.Method)
		}
	}
}
