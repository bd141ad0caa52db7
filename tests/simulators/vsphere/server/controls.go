package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// guestDisk is a disk as its VM uses it now.
type guestDisk struct {
	Vm   string `json:"vm"`
	Name string `json:"name"`
	Key  int32  `json:"key"`
	Uuid string `json:"uuid"`
	Path string `json:"path"` // of the file that the VM writes to: `[datastore] folder/disk-000001.vmdk`
	File string `json:"file"` // where its bytes are
	Size int64  `json:"size"`
}

var (
	machinePath   = regexp.MustCompile(`^/vms/(.+)/(cbt-reset|needs-consolidation|encrypted|raw-device)$`)
	datastorePath = regexp.MustCompile(`^/datastores/(.+)/(accessible|inaccessible)$`)
)

// controls is the tests' own interface, in plain HTTP: JSON in, JSON out.
func (d *frontDoor) controls() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // left unread, it would let the connection end in a reset
		r.Body = io.NopCloser(bytes.NewReader(body))
		d.mu.Lock()
		defer d.mu.Unlock()
		answer, status := d.control(r)
		if status != http.StatusOK {
			http.Error(w, http.StatusText(status), status)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
}

func (d *frontDoor) control(r *http.Request) (interface{}, int) {
	t := d.trouble
	var nothing interface{} = map[string]int{}
	switch r.URL.Path {
	case "/reset":
		fresh := newTrouble()
		fresh.sessions = t.sessions
		d.trouble = fresh
	case "/calls":
		return t.calls, http.StatusOK
	case "/calls-by-vm":
		return t.perVm, http.StatusOK
	case "/sessions":
		return valid(t.sessions), http.StatusOK
	case "/expire":
		for key := range t.sessions {
			t.sessions[key] = false
		}
	case "/events":
		e := new(event)
		if json.NewDecoder(r.Body).Decode(e) != nil {
			return nil, http.StatusBadRequest
		}
		t.events = append(t.events, e)
	case "/revoke":
		var ids []string
		_ = json.NewDecoder(r.Body).Decode(&ids)
		for _, id := range ids {
			t.revoked[id] = true
		}
	case "/nfs-port":
		_ = json.NewDecoder(r.Body).Decode(&nasPort)
	case "/disks":
		return guestDisks(), http.StatusOK
	case "/write":
		return nothing, d.write(r)
	default:
		return nothing, d.controlObject(r.URL.Path)
	}
	return nothing, http.StatusOK
}

func (d *frontDoor) controlObject(path string) int {
	if found := machinePath.FindStringSubmatch(path); found != nil {
		vm, ok := simulator.Map.Get(ref{Type: "VirtualMachine", Value: found[1]}).(*simulator.VirtualMachine)
		switch {
		case !ok:
			return http.StatusNotFound
		case found[2] == "cbt-reset":
			d.disks.resetTracking(vm)
		case found[2] == "encrypted":
			encrypt(vm)
		case found[2] == "raw-device":
			addRawDevice(vm)
		default:
			vm.Runtime.ConsolidationNeeded = types.NewBool(true)
		}
		return http.StatusOK
	}
	if found := datastorePath.FindStringSubmatch(path); found != nil {
		for _, entity := range simulator.Map.All("Datastore") {
			if datastore := entity.(*simulator.Datastore); datastore.Name == found[1] {
				setAccessible(datastore, found[2] == "accessible")
				return http.StatusOK
			}
		}
	}
	return http.StatusNotFound
}

// encrypt lets a VM look as one whose configuration and disks vSphere encrypts.
func encrypt(vm *simulator.VirtualMachine) {
	key := &types.CryptoKeyId{KeyId: "key-1", ProviderId: &types.KeyProviderId{Id: "keys"}}
	vm.Config.KeyId = key
	for _, backing := range covered(vm.Config.Hardware.Device) {
		backing.KeyId = key
	}
}

// addRawDevice gives a VM a LUN of its own, in physical mode.
func addRawDevice(vm *simulator.VirtualMachine) {
	unit := int32(6)
	lun := &types.VirtualDisk{CapacityInKB: 1 << 10, CapacityInBytes: 1 << 20}
	lun.Key, lun.ControllerKey, lun.UnitNumber = 2000+unit, 1000, &unit
	backing := &types.VirtualDiskRawDiskMappingVer1BackingInfo{LunUuid: "02", CompatibilityMode: "physicalMode"}
	backing.FileName = strings.TrimSuffix(vm.Config.Files.VmPathName, ".vmx") + "-lun.vmdk"
	lun.Backing = backing
	vm.Config.Hardware.Device = append(vm.Config.Hardware.Device, lun)
}

func setAccessible(datastore *simulator.Datastore, accessible bool) {
	datastore.Summary.Accessible = accessible
	for i := range datastore.Host {
		datastore.Host[i].MountInfo.Accessible = types.NewBool(accessible)
	}
}

// write changes a disk as its VM's guest does, whatever file the VM is in; `path` may be any of the disk's chain.
func (d *frontDoor) write(r *http.Request) int {
	var request struct {
		Path   string
		Pieces []struct {
			Offset int64
			Data   []byte
		}
	}
	if json.NewDecoder(r.Body).Decode(&request) != nil {
		return http.StatusBadRequest
	}
	vm, backing := inUse(request.Path)
	if vm == nil {
		return http.StatusNotFound
	}
	file, err := os.OpenFile(located(vm, backing.FileName), os.O_WRONLY, 0)
	must(err)
	defer file.Close()
	for _, piece := range request.Pieces {
		_, err = file.WriteAt(piece.Data, piece.Offset)
		must(err)
	}
	return http.StatusOK
}

// inUse finds the VM that a disk belongs to: not one that it is merely attached to.
func inUse(path string) (*simulator.VirtualMachine, *flatBacking) {
	for _, entity := range simulator.Map.All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		for _, device := range vm.Config.Hardware.Device {
			disk, ok := device.(*types.VirtualDisk)
			if !ok {
				continue
			}
			live, _ := disk.Backing.(*flatBacking)
			for above := live; above != nil; above = above.Parent {
				if above.FileName == path && live.DiskMode != string(types.VirtualDiskModeIndependent_nonpersistent) {
					return vm, live
				}
			}
		}
	}
	return nil, nil
}

func guestDisks() []guestDisk {
	found := []guestDisk{}
	for _, entity := range simulator.Map.All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		for _, device := range vm.Config.Hardware.Device {
			disk, ok := device.(*types.VirtualDisk)
			if !ok {
				continue
			}
			if live, flat := disk.Backing.(*flatBacking); flat {
				found = append(found, guestDisk{
					vm.Self.Value, vm.Name, disk.Key, live.Uuid, live.FileName, located(vm, live.FileName), disk.CapacityInBytes,
				})
			}
		}
	}
	return found
}

func valid(sessions map[string]bool) int {
	n := 0
	for _, ok := range sessions {
		if ok {
			n++
		}
	}
	return n
}
