package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// diskShelf keeps what lies behind virtual disks: flat files in the datastores, and what each snapshot froze.
type diskShelf struct {
	frozen     string           // folder: <snapshot>/<datastore>/<path>-flat.vmdk, while there is that snapshot
	removed    string           // the same, afterwards
	kept       int              // how many of them stay per disk; 0: all
	images     map[string]image // "<snapshot>/<device key>" and changeId -> what was frozen
	former     map[string][]string
	generation map[string]string
	sequence   int
}

type image struct {
	path, diskUuid string
}

func newShelf(root string, kept int) *diskShelf {
	return &diskShelf{
		frozen: filepath.Join(root, "frozen"), removed: filepath.Join(root, "removed"), kept: kept,
		images: map[string]image{}, former: map[string][]string{}, generation: map[string]string{},
	}
}

// linkLive lets readers of `<frozen>/<datastore>` find the disks as they are now, where they name no snapshot.
func (s *diskShelf) linkLive(datastores map[string]string) {
	must(os.MkdirAll(s.frozen, 0o755))
	for name, folder := range datastores {
		must(os.Symlink(folder, filepath.Join(s.frozen, name)))
	}
}

func imageKey(snapshot ref, key int32) string { return fmt.Sprintf("%s/%d", snapshot.Value, key) }

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
	writeConfiguration(vm)
	placeFiles(vm)
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
		if disk, ok := device.(*types.VirtualDisk); ok {
			if backing, flat := disk.Backing.(*flatBacking); flat {
				kept, keptBacking := *disk, *backing
				kept.Backing = &keptBacking
				device = &kept
			}
		}
		devices = append(devices, device)
	}
	snapshot.Config.Hardware.Device = devices
	snapshot.Config.ExtraConfig = optionsOf(snapshot.Config.ExtraConfig)
	for key, backing := range covered(devices) {
		s.shelve(vm, snapshot.Self, key, backing)
		s.track(vm, snapshot.Self, key, backing)
	}
	goOn(vm)
}

// shelve links the file that a snapshot froze to where readers of snapshots look for it.
func (s *diskShelf) shelve(vm *simulator.VirtualMachine, snapshot ref, key int32, backing *flatBacking) {
	var path object.DatastorePath
	path.FromString(backing.FileName)
	shelved := filepath.Join(s.frozen, snapshot.Value, path.Datastore, flatOf(path.Path))
	must(os.MkdirAll(filepath.Dir(shelved), 0o755))
	must(os.Link(located(vm, backing.FileName), shelved))
	s.images[imageKey(snapshot, key)] = image{shelved, backing.Uuid}
}

func (s *diskShelf) track(vm *simulator.VirtualMachine, snapshot ref, key int32, backing *flatBacking) {
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
	s.images[backing.ChangeId] = s.images[imageKey(snapshot, key)]
}

// retire puts aside what snapshots that are gone had frozen, and lets the VM's disks settle.
func (s *diskShelf) retire(vm *simulator.VirtualMachine) {
	folders, _ := os.ReadDir(s.frozen)
	for _, folder := range folders {
		if !folder.IsDir() || simulator.Map.Get(ref{Type: "VirtualMachineSnapshot", Value: folder.Name()}) != nil {
			continue
		}
		old, aside := filepath.Join(s.frozen, folder.Name()), filepath.Join(s.removed, folder.Name())
		must(os.MkdirAll(s.removed, 0o755))
		must(os.Rename(old, aside))
		for name, known := range s.images {
			if !strings.HasPrefix(known.path, old+"/") {
				continue
			}
			known.path = aside + strings.TrimPrefix(known.path, old)
			s.images[name] = known
			if strings.HasPrefix(name, folder.Name()+"/") {
				delete(s.images, name)
				s.forget(known)
			}
		}
	}
	s.settle(vm)
}

// forget counts one more image of a disk whose snapshot is gone, and deletes the oldest beyond `kept`.
func (s *diskShelf) forget(one image) {
	list := append(s.former[one.diskUuid], one.path)
	for s.kept > 0 && len(list) > s.kept {
		must(os.Remove(list[0]))
		list = list[1:]
	}
	s.former[one.diskUuid] = list
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
