package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// frontDoor stands before the simulator: counts calls, brings trouble, adds what is missing, repairs what pyvmomi
// can't read. It lets one call in at a time, as the simulator's objects aren't all safe to share.
type frontDoor struct {
	next  http.Handler
	disks *diskShelf
	piece int64

	user, password string

	mu      sync.Mutex
	trouble *trouble
}

var taskIn = regexp.MustCompile(`type="Task">([^<]+)<`)

func (d *frontDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Method != http.MethodPost || !strings.HasPrefix(r.URL.Path, "/sdk") {
		if strings.HasPrefix(r.URL.Path, "/rest") {
			d.trouble.calls["REST"]++
		}
		if strings.HasPrefix(r.URL.Path, "/folder/") {
			d.serveFile(w, r)
			return
		}
		d.next.ServeHTTP(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	method, err := simulator.UnmarshalBody(types.TypeFunc(), body)
	if err != nil {
		d.next.ServeHTTP(w, r)
		return
	}
	d.trouble.count(method)
	if refusal := d.trouble.refusal(r, method); refusal != nil {
		writeFault(w, refusal)
		return
	}
	switch event := d.trouble.take(method); {
	case event == nil:
		copyTo(w, d.answer(r, method))
	case event.Mode == "refuse":
		writeFault(w, event.fault(method))
	case event.Mode == "drop":
		connection, _, err := w.(http.Hijacker).Hijack()
		must(err)
		_ = connection.Close()
	case event.Mode == "fail":
		writeTask(w, method, failedTask(method, event.fault(method)))
	case event.Mode == "slow":
		writeTask(w, method, d.trouble.hold(method, event.Polls, func() *simulator.Task {
			again := r.Clone(r.Context())
			again.Body = io.NopCloser(bytes.NewReader(body))
			return taskOf(d.answer(again, method))
		}))
	case event.Mode == "fail_after":
		answer := d.answer(r, method)
		if task := taskOf(answer); task != nil {
			spoil(task, event.fault(method))
		}
		copyTo(w, answer)
	}
}

// answer lets the simulator do it, then mends what it leaves wrong.
func (d *frontDoor) answer(r *http.Request, method *simulator.Method) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	if answerNas(answer, method) {
		return answer
	}
	switch request := method.Body.(type) {
	case *types.QueryChangedDiskAreas:
		if info, fault := d.disks.changed(request, d.piece); fault != nil {
			writeFault(answer, fault)
		} else {
			writeResponse(answer, &types.QueryChangedDiskAreasResponse{Returnval: *info})
		}
		return answer
	case *types.HasPrivilegeOnEntities:
		writeResponse(answer, &types.HasPrivilegeOnEntitiesResponse{Returnval: d.trouble.privileges(request)})
		return answer
	case *types.ConsolidateVMDisks_Task:
		vm := simulator.Map.Get(method.This).(*simulator.VirtualMachine)
		d.disks.settle(vm)
		vm.Runtime.ConsolidationNeeded = types.NewBool(false)
		task := newTask(method)
		task.Info.State = types.TaskInfoStateSuccess
		writeTask(answer, method, task)
		return answer
	case *types.CancelTask:
		d.trouble.cancel(method.This)
		writeResponse(answer, &types.CancelTaskResponse{})
		return answer
	}
	vm := method.This // a snapshot is gone once its removal has run
	if snapshot, ok := simulator.Map.Get(method.This).(*simulator.VirtualMachineSnapshot); ok {
		vm = snapshot.Vm
	}
	if removing(method) {
		if file := heldElsewhere(vm); file != "" {
			writeTask(answer, method, failedTask(method, &types.FileLocked{FileFault: types.FileFault{File: file}}))
			return answer
		}
		if machine, ok := simulator.Map.Get(vm).(*simulator.VirtualMachine); ok {
			spareDisks(machine)
		}
	}
	func() {
		defer func() { // the simulator panics when asked for a property that isn't set; vCenter answers with nothing
			if why := recover(); why != nil {
				log.Printf("%s: %v\n%s", method.Name, why, debug.Stack())
				answer = httptest.NewRecorder()
				fmt.Fprintf(answer, envelope, "<"+method.Name+`Response xmlns="urn:vim25"/>`)
			}
		}()
		d.next.ServeHTTP(answer, r)
	}()
	d.trouble.watchSession(method, r, answer)
	if task := taskOf(answer); task != nil {
		d.mend(method, task, vm)
	}
	return answer
}

func removing(method *simulator.Method) bool {
	return method.Name == "RemoveSnapshot_Task" || method.Name == "RemoveAllSnapshots_Task"
}

// heldElsewhere is a file of the VM's snapshots that another VM has attached, and so keeps from being merged.
func heldElsewhere(vm ref) string {
	machine, ok := simulator.Map.Get(vm).(*simulator.VirtualMachine)
	if !ok {
		return ""
	}
	for _, live := range covered(machine.Config.Hardware.Device) {
		for frozen := live.Parent; frozen != nil; frozen = frozen.Parent {
			for _, disk := range guestDisks() {
				if disk.Vm != vm.Value && disk.Path == frozen.FileName {
					return frozen.FileName
				}
			}
		}
	}
	return ""
}

func (d *frontDoor) mend(method *simulator.Method, task *simulator.Task, vm ref) {
	if task.Info.Entity != nil {
		switch task.Info.Entity.Type { // pyvmomi takes only managed entities here
		case "VirtualMachineSnapshot":
			task.Info.Entity = &vm
		case "VirtualDiskManager", "FileManager":
			task.Info.Entity = nil
		}
	}
	if task.Info.State != types.TaskInfoStateSuccess {
		return
	}
	switch method.Name {
	case "CreateSnapshot_Task":
		made := simulator.Map.Get(task.Info.Result.(ref)).(*simulator.VirtualMachineSnapshot)
		d.disks.freeze(made)
		placeFiles(simulator.Map.Get(vm).(*simulator.VirtualMachine))
	case "RemoveSnapshot_Task", "RemoveAllSnapshots_Task":
		d.disks.retire(simulator.Map.Get(vm).(*simulator.VirtualMachine))
		placeFiles(simulator.Map.Get(vm).(*simulator.VirtualMachine))
	case "RevertToSnapshot_Task":
		d.disks.goBack(simulator.Map.Get(vm).(*simulator.VirtualMachine), method.This)
	case "RelocateVM_Task":
		machine, spec := simulator.Map.Get(vm).(*simulator.VirtualMachine), method.Body.(*types.RelocateVM_Task).Spec
		if store := spec.Datastore; store != nil {
			moveFiles(machine, simulator.Map.Get(*store).(*simulator.Datastore))
		}
		moveDisks(machine, spec.Disk)
	case "CreateVM_Task", "CloneVM_Task", "RegisterVM_Task":
		if made, ok := task.Info.Result.(ref); ok {
			d.disks.furnish(simulator.Map.Get(made).(*simulator.VirtualMachine))
		}
	case "ReconfigVM_Task":
		changed := simulator.Map.Get(method.This).(*simulator.VirtualMachine)
		d.disks.furnish(changed)
		if on := method.Body.(*types.ReconfigVM_Task).Spec.ChangeTrackingEnabled; on != nil && !*on {
			d.disks.resetTracking(changed)
		}
	}
}

func taskOf(answer *httptest.ResponseRecorder) *simulator.Task {
	if found := taskIn.FindSubmatch(answer.Body.Bytes()); found != nil && answer.Code == http.StatusOK {
		task, _ := simulator.Map.Get(ref{Type: "Task", Value: string(found[1])}).(*simulator.Task)
		return task
	}
	return nil
}

const envelope = `<?xml version="1.0" encoding="UTF-8"?>
<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><e:Body>%s</e:Body></e:Envelope>`

func writeResponse(w io.Writer, response interface{}) {
	fmt.Fprintf(w, envelope, encode(response, xml.StartElement{
		Name: xml.Name{Space: "urn:vim25", Local: reflect.TypeOf(response).Elem().Name()},
	}))
}

func writeTask(w io.Writer, method *simulator.Method, task *simulator.Task) {
	fmt.Fprintf(w, envelope, fmt.Sprintf(`<%sResponse xmlns="urn:vim25"><returnval type="Task">%s</returnval></%[1]sResponse>`,
		method.Name, task.Self.Value))
}

func writeFault(w http.ResponseWriter, fault types.BaseMethodFault) {
	kind := reflect.TypeOf(fault).Elem().Name()
	detail := encode(fault, xml.StartElement{Name: xml.Name{Local: kind + "Fault"}, Attr: []xml.Attr{
		{Name: xml.Name{Local: "xmlns"}, Value: "urn:vim25"}, {Name: xml.Name{Local: "xsi:type"}, Value: kind},
	}})
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, envelope, "<e:Fault><faultcode>ServerFaultCode</faultcode><faultstring>simulated: "+kind+
		"</faultstring><detail>"+detail+"</detail></e:Fault>")
}

func encode(value interface{}, start xml.StartElement) string {
	var out bytes.Buffer
	encoder := xml.NewEncoder(&out)
	must(encoder.EncodeElement(value, start))
	must(encoder.Flush())
	return out.String()
}

func copyTo(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// sessionOf is the login that a request comes with.
func sessionOf(r *http.Request) string {
	if cookie, err := r.Cookie(soap.SessionCookieName); err == nil {
		return strings.Trim(cookie.Value, `"`)
	}
	return ""
}
