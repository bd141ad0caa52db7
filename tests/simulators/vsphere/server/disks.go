package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// diskShelf keeps what lies behind virtual disks: flat files in the datastores, and a frozen copy of each per snapshot.
type diskShelf struct {
	frozen     string           // folder: <snapshot>/<datastore>/<path>-flat.vmdk
	images     map[string]image // "<snapshot>/<device key>" and changeId -> copy
	generation map[string]string
	sequence   int
}

type image struct {
	path, diskUuid string
}

// folderOf is the folder of the datastore that the VM knows by this name.
func folderOf(vm *simulator.VirtualMachine, name string) string {
	for _, r := range vm.Datastore {
		if d, ok := simulator.Map.Get(r).(*simulator.Datastore); ok && d.Name == name {
			return d.Info.GetDatastoreInfo().Url
		}
	}
	for _, e := range simulator.Map.All("Datastore") { // a disk of another VM's datastore, attached to this one
		if d := e.(*simulator.Datastore); d.Name == name {
			return d.Info.GetDatastoreInfo().Url
		}
	}
	return ""
}

func flatOf(path string) string { return strings.TrimSuffix(path, ".vmdk") + "-flat.vmdk" }

func (s *diskShelf) furnishAll() {
	for _, e := range simulator.Map.All("VirtualMachine") {
		s.furnish(e.(*simulator.VirtualMachine))
	}
}

// furnish gives a VM's disks what the simulator leaves out: uuid, size, a descriptor, a flat file of that size.
func (s *diskShelf) furnish(vm *simulator.VirtualMachine) {
	if vm.Capability.ChangeTrackingSupported == nil {
		vm.Capability.ChangeTrackingSupported = types.NewBool(true)
	}
	for _, device := range vm.Config.Hardware.Device {
		disk, ok := device.(*types.VirtualDisk)
		if !ok {
			continue
		}
		if disk.CapacityInBytes == 0 {
			disk.CapacityInBytes = disk.CapacityInKB * 1024
		}
		if disk.DiskObjectId == "" {
			disk.DiskObjectId = fmt.Sprintf("%s-%d", strings.TrimPrefix(vm.Self.Value, "vm-"), disk.Key)
		}
		backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if !ok {
			continue
		}
		var path object.DatastorePath
		path.FromString(backing.FileName)
		descriptor := filepath.Join(folderOf(vm, path.Datastore), path.Path)
		if backing.Uuid == "" {
			backing.Uuid = uuidIn(descriptor)
		}
		if info, err := os.Stat(descriptor); err == nil && info.Size() == 0 {
			must(os.WriteFile(descriptor, []byte(describe(disk.CapacityInBytes, path.Path, backing.Uuid)), 0o644))
		}
		if info, err := os.Stat(flatOf(descriptor)); err == nil && info.Size() < disk.CapacityInBytes {
			must(os.Truncate(flatOf(descriptor), disk.CapacityInBytes))
		}
	}
}

func uuidIn(descriptor string) string {
	text, _ := os.ReadFile(descriptor)
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "# uuid ") {
			return strings.TrimPrefix(line, "# uuid ")
		}
	}
	return "6000c29" + uuid.New().String()[7:]
}

func describe(size int64, path, id string) string {
	return fmt.Sprintf("# Disk DescriptorFile\n# uuid %s\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\n"+
		"RW %d VMFS \"%s\"\n\nddb.adapterType = \"lsilogic\"\n", id, size/512, filepath.Base(flatOf(path)))
}

// freeze keeps each disk of a new snapshot as it is now and, where changes are tracked, gives it a changeId.
func (s *diskShelf) freeze(snapshot *simulator.VirtualMachineSnapshot) {
	vm := simulator.Map.Get(snapshot.Vm).(*simulator.VirtualMachine)
	var devices object.VirtualDeviceList
	for _, device := range snapshot.Config.Hardware.Device {
		disk, ok := device.(*types.VirtualDisk)
		if ok {
			if backing, flat := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); flat {
				kept, keptBacking := *disk, *backing
				s.freezeDisk(vm, snapshot.Self, &kept, &keptBacking)
				kept.Backing = &keptBacking
				device = &kept
			}
		}
		devices = append(devices, device)
	}
	snapshot.Config.Hardware.Device = devices
}

func (s *diskShelf) freezeDisk(vm *simulator.VirtualMachine, snapshot ref, disk *types.VirtualDisk, backing *types.VirtualDiskFlatVer2BackingInfo) {
	var path object.DatastorePath
	path.FromString(backing.FileName)
	live := filepath.Join(folderOf(vm, path.Datastore), flatOf(path.Path))
	copied := filepath.Join(s.frozen, snapshot.Value, path.Datastore, flatOf(path.Path))
	must(os.MkdirAll(filepath.Dir(copied), 0o755))
	must(exec.Command("cp", "--reflink=auto", "--sparse=always", live, copied).Run())
	s.images[fmt.Sprintf("%s/%d", snapshot.Value, disk.Key)] = image{copied, backing.Uuid}
	if on := vm.Config.ChangeTrackingEnabled; on == nil || !*on {
		delete(s.generation, backing.Uuid)
		return
	}
	if s.generation[backing.Uuid] == "" {
		id := strings.ReplaceAll(uuid.New().String(), "-", "")
		s.generation[backing.Uuid] = strings.TrimSpace(strings.Join(pairs(id[:16]), " ") + "-" + strings.Join(pairs(id[16:]), " "))
	}
	s.sequence++
	backing.ChangeId = fmt.Sprintf("%s/%d", s.generation[backing.Uuid], s.sequence)
	s.images[backing.ChangeId] = image{copied, backing.Uuid}
}

func pairs(hex string) []string {
	var out []string
	for i := 0; i < len(hex); i += 2 {
		out = append(out, hex[i:i+2])
	}
	return out
}

// resetTracking forgets what changed since any earlier point, as a crash of a host does.
func (s *diskShelf) resetTracking(vm *simulator.VirtualMachine) {
	for _, device := range vm.Config.Hardware.Device {
		if disk, ok := device.(*types.VirtualDisk); ok {
			if backing, flat := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); flat {
				delete(s.generation, backing.Uuid)
			}
		}
	}
}
