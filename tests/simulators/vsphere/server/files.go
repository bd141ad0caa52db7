package main

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const nvramBytes = 8684 // as ESXi makes them

// writeConfiguration fills the files of a VM's configuration, which the simulator leaves empty.
func writeConfiguration(vm *simulator.VirtualMachine) {
	var path object.DatastorePath
	path.FromString(vm.Config.Files.VmPathName)
	vmx := filepath.Join(folderOf(vm, path.Datastore), path.Path)
	nvram := filepath.Join(filepath.Dir(vmx), vm.Name+".nvram")
	writeIfEmpty(vmx, []byte(vmxOf(vm)))
	seed := sha256.Sum256([]byte(vm.Config.Uuid))
	content := []byte("MRVN")
	for len(content) < nvramBytes {
		content = append(content, seed[:]...)
	}
	writeIfEmpty(nvram, content[:nvramBytes])
}

// placeFiles names a VM's files with the folder that they are in, which the simulator leaves out.
func placeFiles(vm *simulator.VirtualMachine) {
	var home object.DatastorePath
	home.FromString(vm.Config.Files.VmPathName)
	seen := map[string]bool{}
	var placed []types.VirtualMachineFileLayoutExFileInfo
	for _, file := range vm.LayoutEx.File {
		var path object.DatastorePath
		path.FromString(file.Name)
		if !strings.Contains(path.Path, "/") {
			path.Path = filepath.Join(filepath.Dir(home.Path), path.Path)
			file.Name = path.String()
		}
		if !seen[file.Name] {
			placed = append(placed, file)
		}
		seen[file.Name] = true
	}
	vm.LayoutEx.File = placed
}

// spareDisks keeps the simulator, which gives one number to several files, from deleting a disk's with a snapshot.
func spareDisks(vm *simulator.VirtualMachine) {
	for i := range vm.LayoutEx.Snapshot {
		kept := &vm.LayoutEx.Snapshot[i]
		for _, file := range vm.LayoutEx.File {
			if file.Key == kept.DataKey && !strings.HasSuffix(file.Name, ".vmsn") {
				kept.DataKey = -1
			}
		}
	}
}

// moveFiles takes a VM's folder to another datastore and names its files anew, which the simulator leaves out.
func moveFiles(vm *simulator.VirtualMachine, to *simulator.Datastore) {
	var home object.DatastorePath
	home.FromString(vm.Config.Files.VmPathName)
	from := folderOf(vm, home.Datastore)
	folder := filepath.Dir(home.Path)
	must(os.Rename(filepath.Join(from, folder), filepath.Join(to.Info.GetDatastoreInfo().Url, folder)))
	renamed := func(name string) string {
		return strings.Replace(name, "["+home.Datastore+"] "+folder+"/", "["+to.Name+"] "+folder+"/", 1)
	}
	vm.Config.Files.VmPathName = renamed(vm.Config.Files.VmPathName)
	vm.Summary.Config.VmPathName = vm.Config.Files.VmPathName
	for i := range vm.LayoutEx.File {
		vm.LayoutEx.File[i].Name = renamed(vm.LayoutEx.File[i].Name)
	}
	lists := []object.VirtualDeviceList{vm.Config.Hardware.Device}
	for _, snapshot := range snapshotsOf(vm) {
		lists = append(lists, snapshot.Config.Hardware.Device)
	}
	for _, devices := range lists {
		for _, live := range covered(devices) {
			for above := live; above != nil; above = above.Parent {
				above.FileName = renamed(above.FileName)
				above.Datastore = &to.Self
			}
		}
	}
}

func writeIfEmpty(path string, content []byte) {
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		must(os.WriteFile(path, content, 0o644))
	}
}

func vmxOf(vm *simulator.VirtualMachine) string {
	lines := []string{
		".encoding = \"UTF-8\"", "config.version = \"8\"",
		fmt.Sprintf("displayName = \"%s\"", vm.Name),
		fmt.Sprintf("guestOS = \"%s\"", vm.Config.GuestId),
		fmt.Sprintf("memSize = \"%d\"", vm.Config.Hardware.MemoryMB),
		fmt.Sprintf("numvcpus = \"%d\"", vm.Config.Hardware.NumCPU),
		fmt.Sprintf("uuid.bios = \"%s\"", vm.Config.Uuid),
		fmt.Sprintf("vc.uuid = \"%s\"", vm.Config.InstanceUuid),
		fmt.Sprintf("nvram = \"%s.nvram\"", vm.Name),
	}
	for _, device := range vm.Config.Hardware.Device {
		if disk, ok := device.(*types.VirtualDisk); ok && disk.UnitNumber != nil {
			if backing, flat := disk.Backing.(*flatBacking); flat {
				lines = append(lines, fmt.Sprintf("scsi0:%d.fileName = \"%s\"", *disk.UnitNumber, filepath.Base(backing.FileName)))
			}
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// serveFile hands out and takes files of datastores to those who are logged in, or say who they are.
func (d *frontDoor) serveFile(w http.ResponseWriter, r *http.Request) {
	user, password, basic := r.BasicAuth()
	allowed := basic && user == d.user && password == d.password
	if !allowed && !d.trouble.sessions[sessionOf(r)] {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	if privilege := "Datastore.FileManagement"; d.trouble.revoked[privilege] {
		http.Error(w, "Forbidden: "+privilege, http.StatusForbidden)
		return
	}
	d.trouble.countFile(r)
	d.next.ServeHTTP(w, r)
}
