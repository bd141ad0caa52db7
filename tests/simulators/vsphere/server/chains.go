package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// A snapshot freezes the file that a disk is in; the VM goes on in a new one, as vSphere's deltas do. Here that is a
// whole copy, `disk-000001.vmdk` with its `-flat.vmdk`, so that every file of a chain can be read by itself.

type flatBacking = types.VirtualDiskFlatVer2BackingInfo

var deltaNumber = regexp.MustCompile(`-\d{6}\.vmdk$`)

// covered are the disks of a device list that snapshots work on, by device key.
func covered(devices object.VirtualDeviceList) map[int32]*flatBacking {
	found := map[int32]*flatBacking{}
	for _, device := range devices {
		if disk, ok := device.(*types.VirtualDisk); ok {
			if backing, flat := disk.Backing.(*flatBacking); flat && !strings.HasPrefix(backing.DiskMode, "independent") {
				found[disk.Key] = backing
			}
		}
	}
	return found
}

// located is where the bytes of `[datastore] folder/disk.vmdk` are.
func located(vm *simulator.VirtualMachine, name string) string {
	var path object.DatastorePath
	path.FromString(name)
	return filepath.Join(folderOf(vm, path.Datastore), flatOf(path.Path))
}

// goOn lets a VM write to new files from now on.
func goOn(vm *simulator.VirtualMachine) {
	for key, backing := range covered(vm.Config.Hardware.Device) {
		parent := *backing
		stem := deltaNumber.ReplaceAllString(parent.FileName, ".vmdk")
		for number := 1; ; number++ {
			backing.FileName = fmt.Sprintf("%s-%06d.vmdk", strings.TrimSuffix(stem, ".vmdk"), number)
			if _, err := os.Stat(located(vm, backing.FileName)); os.IsNotExist(err) {
				break
			}
		}
		backing.Parent = &parent
		copySparse(located(vm, parent.FileName), located(vm, backing.FileName))
		describeDelta(vm, key, backing)
	}
}

func describeDelta(vm *simulator.VirtualMachine, key int32, backing *flatBacking) {
	var path object.DatastorePath
	path.FromString(backing.FileName)
	size, err := os.Stat(located(vm, backing.FileName))
	must(err)
	descriptor := filepath.Join(folderOf(vm, path.Datastore), path.Path)
	must(os.WriteFile(descriptor, []byte(describe(size.Size(), path.Path, backing.Uuid)), 0o644))
}

// settle merges the files that no snapshot of the VM needs any more into those that they followed.
func (s *diskShelf) settle(vm *simulator.VirtualMachine) {
	snapshots := snapshotsOf(vm)
	for key, live := range covered(vm.Config.Hardware.Device) {
		for merged := true; merged; {
			merged = false
			for child := live; child.Parent != nil; child = child.Parent {
				if s.needed(snapshots, key, child.Parent.FileName) {
					continue
				}
				s.merge(vm, snapshots, key, live, child)
				merged = true
				break
			}
		}
	}
}

func (s *diskShelf) needed(snapshots []*simulator.VirtualMachineSnapshot, key int32, file string) bool {
	for _, snapshot := range snapshots {
		if backing, ok := covered(snapshot.Config.Hardware.Device)[key]; ok && backing.FileName == file {
			return true
		}
	}
	return false
}

// merge gives the parent of child what child holds, and its name to all that knew child.
func (s *diskShelf) merge(
	vm *simulator.VirtualMachine, snapshots []*simulator.VirtualMachineSnapshot, key int32, live, child *flatBacking,
) {
	old, parent := child.FileName, child.Parent
	must(os.Rename(located(vm, old), located(vm, parent.FileName)))
	var path object.DatastorePath
	path.FromString(old)
	must(os.Remove(filepath.Join(folderOf(vm, path.Datastore), path.Path)))
	for above := live; above != nil; above = above.Parent {
		if above.FileName == old {
			above.FileName, above.Parent = parent.FileName, parent.Parent
			break
		}
	}
	for _, snapshot := range snapshots {
		for above := covered(snapshot.Config.Hardware.Device)[key]; above != nil; above = above.Parent {
			if above.FileName == old {
				above.FileName, above.Parent = parent.FileName, parent.Parent
				s.shelve(vm, snapshot.Self, key, above)
			}
		}
	}
}

// goBack gives a VM the disks of a snapshot again; tracking starts anew.
func (s *diskShelf) goBack(vm *simulator.VirtualMachine, snapshot ref) {
	kept := simulator.Map.Get(snapshot).(*simulator.VirtualMachineSnapshot).Config
	vm.Config.ExtraConfig = optionsOf(kept.ExtraConfig)
	vm.Config.Hardware.MemoryMB, vm.Config.Hardware.NumCPU = kept.Hardware.MemoryMB, kept.Hardware.NumCPU
	for key, backing := range covered(vm.Config.Hardware.Device) {
		if image, known := s.images[imageKey(snapshot, key)]; known {
			copySparse(image.path, located(vm, backing.FileName))
			delete(s.generation, backing.Uuid)
		}
	}
}

// optionsOf is a copy: changes of a VM's options are made in place.
func optionsOf(options []types.BaseOptionValue) []types.BaseOptionValue {
	var copies []types.BaseOptionValue
	for _, option := range options {
		value := *option.GetOptionValue()
		copies = append(copies, &value)
	}
	return copies
}

func snapshotsOf(vm *simulator.VirtualMachine) []*simulator.VirtualMachineSnapshot {
	var found []*simulator.VirtualMachineSnapshot
	var walk func(nodes []types.VirtualMachineSnapshotTree)
	walk = func(nodes []types.VirtualMachineSnapshotTree) {
		for _, node := range nodes {
			if snapshot, ok := simulator.Map.Get(node.Snapshot).(*simulator.VirtualMachineSnapshot); ok {
				found = append(found, snapshot)
			}
			walk(node.ChildSnapshotList)
		}
	}
	if vm.Snapshot != nil {
		walk(vm.Snapshot.RootSnapshotList)
	}
	return found
}

func copySparse(from, to string) {
	must(exec.Command("cp", "--reflink=auto", "--sparse=always", from, to).Run())
}
