# Sourced by test and faults: what tests need beside Python, from the distribution. Says loudly what is missing.

yuzui_faketime() { # ls fails when either pattern finds nothing; one is enough
    for library in /usr/lib/*/faketime/libfaketime.so.1 /usr/lib64/faketime/libfaketime.so.1; do
        [ -e "$library" ] && return 0
    done
    return 1
}

yuzui_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

# Clients of Node for tests (MQTT.js, Eclipse Tahu), as tests/speakers/package-lock.json has them, into the cache.
yuzui_speakers() {
    command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 || return 1
    speakers="$YUZUI_ROOT/tests/speakers"
    digest=$(sha256sum "$speakers/package-lock.json" | cut -c1-16)
    folder="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/yuzui/speakers-$digest"
    [ -d "$folder/node_modules/mqtt" ] && return 0
    yuzui_say "Fetching clients of Node for tests (40 MB) into $folder"
    rm -rf "$folder.part"
    mkdir -p "$folder.part" && cp "$speakers/package.json" "$speakers/package-lock.json" "$folder.part/" || return 1
    (cd "$folder.part" && npm ci --ignore-scripts --no-audit --no-fund >/dev/null 2>&1) || return 1
    rm -rf "$folder" && mv "$folder.part" "$folder"
}

# promtool, out of Prometheus' package: unpacked into the cache, for installing it would begin a service.
yuzui_promtool() {
    command -v promtool >/dev/null 2>&1 && return 0
    folder="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/yuzui/prometheus"
    [ -x "$folder/usr/bin/promtool" ] && return 0
    command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 || return 1
    yuzui_say "Fetching promtool (20 MB) into $folder"
    rm -rf "$folder.part"
    mkdir -p "$folder.part" || return 1
    (cd "$folder.part" && apt-get download -qq prometheus >/dev/null 2>&1 && dpkg -x prometheus_*.deb . 2>/dev/null \
        && rm -f prometheus_*.deb usr/bin/prometheus) || return 1
    rm -rf "$folder" && mv "$folder.part" "$folder"
}

yuzui_tools() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin:/sbin"
    packages=""
    command -v mosquitto >/dev/null 2>&1 && command -v mosquitto_pub >/dev/null 2>&1 \
        || packages="$packages mosquitto mosquitto-clients"
    command -v nats-server >/dev/null 2>&1 || packages="$packages nats-server"
    command -v mkfs.xfs >/dev/null 2>&1 || packages="$packages xfsprogs"
    command -v strace >/dev/null 2>&1 || packages="$packages strace"
    yuzui_faketime || packages="$packages libfaketime"
    # A browser and the letters of its page: some 100 MB, once.
    yuzui_browser >/dev/null 2>&1 || packages="$packages chromium fonts-noto-cjk"
    if [ -n "$packages" ] && command -v apt-get >/dev/null 2>&1; then
        root=""
        [ "$(id -u)" = 0 ] || root="sudo -n"
        if $root true 2>/dev/null; then
            yuzui_say "Installing from the distribution (a few MB; a browser some 100):$packages"
            export DEBIAN_FRONTEND=noninteractive
            $root apt-get update -qq >/dev/null 2>&1 || true
            # One by one: a distribution without one of them has the others.
            for package in $packages; do
                $root apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 || true
            done
        fi
    fi
    missing=""
    command -v mosquitto >/dev/null 2>&1 || missing="$missing mosquitto"
    command -v nats-server >/dev/null 2>&1 || missing="$missing nats-server"
    command -v mkfs.xfs >/dev/null 2>&1 || missing="$missing xfsprogs"
    command -v strace >/dev/null 2>&1 || missing="$missing strace"
    yuzui_faketime || missing="$missing libfaketime"
    yuzui_browser >/dev/null 2>&1 || missing="$missing chromium"
    [ "$(id -u)" = 0 ] || missing="$missing root"
    yuzui_speakers || missing="$missing speakers"
    yuzui_promtool || missing="$missing promtool"
    [ -z "$missing" ] && return 0
    yuzui_say "=================================================================================="
    case " $missing " in *" mosquitto "*) yuzui_say "SKIPPED: everything that needs a real broker (mosquitto)." ;; esac
    case " $missing " in *" nats-server "*) yuzui_say "SKIPPED: kills behind NATS (nats-server)." ;; esac
    case " $missing " in *" xfsprogs "*) yuzui_say "SKIPPED: power cuts on XFS (xfsprogs)." ;; esac
    case " $missing " in *" speakers "*) yuzui_say "SKIPPED: MQTT.js and Eclipse Tahu speak to an engine (node, npm, a registry)." ;; esac
    case " $missing " in *" promtool "*) yuzui_say "SKIPPED: Prometheus' own check of rules and metrics (promtool)." ;; esac
    case " $missing " in *" strace "*) yuzui_say "SKIPPED: the kernel's account of acknowledgements (strace)." ;; esac
    case " $missing " in *" libfaketime "*) yuzui_say "SKIPPED: clocks that jump (libfaketime)." ;; esac
    case " $missing " in *" chromium "*) yuzui_say "SKIPPED: the map in a real browser (chromium)." ;; esac
    case " $missing " in *" root "*) yuzui_say "SKIPPED: power cuts, full and stalled disks, networks that go away (root)." ;; esac
    yuzui_say "Install what is named in brackets with your system's package tool and run this again."
    yuzui_say "=================================================================================="
}
