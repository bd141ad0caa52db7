# Says what kind of machine this is, in lines `key=value`: for any Unix shell, before Python is known to be there.
echo "os=$(uname -s)"
echo "architecture=$(uname -m)"
echo "uid=$(id -u)"
echo "user=$(id -un)"
echo "home=$HOME"
echo "name=$(. /etc/os-release 2>/dev/null && echo "$PRETTY_NAME")"
sudo -n true >/dev/null 2>&1 && echo "sudo=yes"
for python in python3.14 python3.13 python3.12 python3.11 python3 /usr/local/bin/python3; do
    found=$(command -v "$python") || continue
    version=$("$found" -c 'import sys, venv; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
    echo "python=$found $version"
done
