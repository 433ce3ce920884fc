#!/bin/sh
# Handfast's traffic capture: one rule set per address family in the nat table of this network namespace.
#
#   handfast-iptables.sh apply [--dry-run] [options]   put the rules in place, replacing those of an earlier apply
#   handfast-iptables.sh clean [--dry-run]             take them out again
#   handfast-iptables.sh print [options]               show them; needs neither root nor iptables
#
# Needs a POSIX shell, iptables (nft or legacy, whichever is on PATH) and, for IPv6, ip6tables and ip (iproute2).
# Writes no files. Run with --help for the options.
#
# Exit codes: 0 done; 1 not done, and everything is as it was before; 2 the command line is wrong, nothing was tried;
#             3 not done, and undoing it failed too: the message says which family is left half way.
#
# ---- Why each rule exists ----------------------------------------------------------------------------------------
#
# HANDFAST_INBOUND: connections that come in from outside, and the proxy's own calls to this pod.
#   15008 RETURN              the HBONE tunnel has a listener of its own, which must see the peer's TLS itself.
#   15020, 15021 RETURN       kubelet and Prometheus speak plain HTTP to metrics, probes and readiness; readiness
#                             must answer before there is a certificate, and under STRICT.
#   excluded ports RETURN     what the operator took out of the mesh, by port ...
#   excluded interfaces       ... or by the interface it came in on.
#   -> HANDFAST_IN_REDIRECT   the rest (or the listed ports) goes to the inbound listener. A direct dial of 15001 or
#                             15006 from outside is not exempt: it reaches the proxy, which sees a listener of its
#                             own as the original destination and refuses the loop with a reason in its log.
#
# HANDFAST_OUTPUT: connections opened inside this pod. First match wins, so the order is the meaning.
#   1 -o lo -s 127.0.0.6      the inbound listener, handing a connection that it has already judged to the application.
#     RETURN                  Without it that connection would come back to the inbound listener for ever (rule 2).
#   2 -o lo, proxy's uid, not the application called a service and the proxy chose this very pod as the endpoint.
#     to 127.0.0.0/8          The call leaves the outbound side as mTLS and must enter through the inbound side like
#     -> HANDFAST_INBOUND     anyone else's, or the application would be handed raw TLS. It takes the same chain as
#                             remote callers, so tunnel, probes and excluded ports mean the same to both. Loopback
#                             addresses are never a service's: a resolver on 127.0.0.11 or 127.0.0.53, asked over TCP
#                             by the proxy, must not end up in the inbound listener.
#   3 the same for the gid    a proxy that runs under another uid is still the proxy if its gid says so.
#   4 proxy's uid RETURN      what the proxy sends is the result of capture; capturing it again is a loop.
#   5 proxy's gid RETURN      the same. Both self-call rules stand before both exemptions, and all four before rule 6:
#                             uid 1337 with another gid, and gid 1337 with another uid, are each the proxy in full. (A
#                             "not this gid: RETURN" placed early would hand self-calls of uid 1337 out as raw TLS.)
#   6 -o lo RETURN            containers of one pod talking among themselves; there is no network to protect.
#   7 127.0.0.0/8 RETURN      the same, should some routing rule ever send loopback addresses elsewhere than lo.
#   8 excluded interfaces,    what the operator took out of the mesh. Exclusions stand before inclusions: an address
#     ports, ranges RETURN    that is in both lists is excluded.
#   9 included ports, ranges  what is left to capture: by default everything, DNS over TCP too (the outbound listener
#     -> HANDFAST_REDIRECT    passes it on like any other TCP; exclude port 53 to keep it away).
#
# HANDFAST_IN_REDIRECT, HANDFAST_REDIRECT: the two listeners, each port written once.
#
# IPv6 gets the same rules with ::6 and ::1. 127.0.0.6 is local by nature, ::6 is not: apply puts ::6/128 on lo, so that
# the inbound listener can bind it.

set -u
set -f # '*' is a value here, never a file name
LC_ALL=C
export LC_ALL

PROG=handfast-iptables
NL='
'
TUNNEL_PORT=15008
UNCAPTURED_PORTS="$TUNNEL_PORT 15020 15021"

ACTION=
DRY_RUN=no
INCLUDE_INBOUND_PORTS='*'
EXCLUDE_INBOUND_PORTS=
INCLUDE_OUTBOUND_PORTS=
EXCLUDE_OUTBOUND_PORTS=
INCLUDE_OUTBOUND_IP_RANGES='*'
EXCLUDE_OUTBOUND_IP_RANGES=
EXCLUDE_INTERFACES=
INBOUND_PORT=15006
OUTBOUND_PORT=15001
PROXY_UID=1337
PROXY_GID=1337
IPV6=auto

usage() {
  cat <<'EOF'
usage: apply [--dry-run] [options]   redirect this network namespace's TCP into the Handfast proxy
       clean [--dry-run]             remove the redirection
       print [options]               show the rules for both address families; needs no root

What to capture. Lists are separated by commas; each option is the Istio annotation named beside it.
  --include-inbound-ports LIST       ports, '*' for all, '' for none (default '*')
                                       traffic.sidecar.istio.io/includeInboundPorts
  --exclude-inbound-ports LIST       ports that stay out, even if included (default none)
                                       traffic.sidecar.istio.io/excludeInboundPorts
  --include-outbound-ports LIST      ports captured whatever the destination address (default none)
                                       traffic.sidecar.istio.io/includeOutboundPorts
  --exclude-outbound-ports LIST      ports that stay out, even if included (default none)
                                       traffic.sidecar.istio.io/excludeOutboundPorts
  --include-outbound-ip-ranges LIST  CIDRs of either family, '*' for all, '' for none (default '*')
                                       traffic.sidecar.istio.io/includeOutboundIPRanges
  --exclude-outbound-ip-ranges LIST  CIDRs that stay out, even if included (default none)
                                       traffic.sidecar.istio.io/excludeOutboundIPRanges
  --exclude-interfaces LIST          interfaces whose traffic stays out, both ways (default none)
                                       traffic.sidecar.istio.io/excludeInterfaces

Where to, and who is exempt.
  --inbound-port PORT                the proxy's inbound listener (default 15006)
  --outbound-port PORT               the proxy's outbound listener (default 15001)
  --proxy-uid ID                     connections of this uid are not captured (default 1337)
  --proxy-gid ID                     connections of this gid are not captured (default 1337)
  --ipv6 auto|on|off                 auto: whenever this namespace has IPv6, and then it must work; on: it must
                                     have it; off: IPv6 traffic is not captured and bypasses the mesh (default auto)

  --dry-run                          with apply and clean: say what would be done, change nothing
  --help                             this text

Exit codes: 0 done; 1 not done, everything is as it was; 2 wrong command line; 3 not done and not undone either.
EOF
}

note() { printf '%s: %s\n' "$PROG" "$*"; }
complain() { printf '%s: %s\n' "$PROG" "$*" >&2; }

fail() {
  complain "$*"
  exit 1
}

# refuse OPTION VALUE ACCEPTED [WHY]
refuse() {
  complain "$1: '$2' is not accepted${4:+ ($4)}; accepted: $3"
  exit 2
}

# ---- the command line --------------------------------------------------------------------------------------------

parse_command_line() {
  while [ $# -gt 0 ]; do
    pcl_option=$1
    shift
    case $pcl_option in
      apply | clean | print)
        [ -z "$ACTION" ] || refuse 'command' "$pcl_option" 'one command' "there is already '$ACTION'"
        ACTION=$pcl_option
        continue
        ;;
      --help | -h | help)
        usage
        exit 0
        ;;
      --dry-run)
        DRY_RUN=yes
        continue
        ;;
      --*=*)
        pcl_value=${pcl_option#*=}
        pcl_option=${pcl_option%%=*}
        ;;
      --*)
        # An unknown option is named as such before its missing value is.
        known_option "$pcl_option" || refuse 'option' "$pcl_option" 'the options shown by --help'
        [ $# -gt 0 ] || refuse "$pcl_option" '' "a value, as '$pcl_option VALUE' or '$pcl_option=VALUE'" 'the value is missing'
        pcl_value=$1
        shift
        ;;
      *) refuse 'command' "$pcl_option" 'apply, clean or print, and the options shown by --help' ;;
    esac
    known_option "$pcl_option" || refuse 'option' "$pcl_option" 'the options shown by --help'
    case $pcl_option in
      --include-inbound-ports) INCLUDE_INBOUND_PORTS=$pcl_value ;;
      --exclude-inbound-ports) EXCLUDE_INBOUND_PORTS=$pcl_value ;;
      --include-outbound-ports) INCLUDE_OUTBOUND_PORTS=$pcl_value ;;
      --exclude-outbound-ports) EXCLUDE_OUTBOUND_PORTS=$pcl_value ;;
      --include-outbound-ip-ranges) INCLUDE_OUTBOUND_IP_RANGES=$pcl_value ;;
      --exclude-outbound-ip-ranges) EXCLUDE_OUTBOUND_IP_RANGES=$pcl_value ;;
      --exclude-interfaces) EXCLUDE_INTERFACES=$pcl_value ;;
      --inbound-port) INBOUND_PORT=$pcl_value ;;
      --outbound-port) OUTBOUND_PORT=$pcl_value ;;
      --proxy-uid) PROXY_UID=$pcl_value ;;
      --proxy-gid) PROXY_GID=$pcl_value ;;
      --ipv6) IPV6=$pcl_value ;;
    esac
  done
  [ -n "$ACTION" ] || refuse 'command' '' 'apply, clean or print, and the options shown by --help' 'it is missing'
  [ "$ACTION" != print ] || [ "$DRY_RUN" = no ] || refuse 'option' '--dry-run' 'it with apply and clean' 'print changes nothing anyway'
}

known_option() {
  case $1 in
    --include-inbound-ports | --exclude-inbound-ports | --include-outbound-ports | --exclude-outbound-ports) ;;
    --include-outbound-ip-ranges | --exclude-outbound-ip-ranges | --exclude-interfaces) ;;
    --inbound-port | --outbound-port | --proxy-uid | --proxy-gid | --ipv6) ;;
    *) return 1 ;;
  esac
}

check_command_line() {
  check_ports --include-inbound-ports "$INCLUDE_INBOUND_PORTS" star
  INCLUDE_INBOUND_PORTS=$ITEMS
  check_ports --exclude-inbound-ports "$EXCLUDE_INBOUND_PORTS" plain
  EXCLUDE_INBOUND_PORTS=$ITEMS
  check_ports --include-outbound-ports "$INCLUDE_OUTBOUND_PORTS" plain
  INCLUDE_OUTBOUND_PORTS=$ITEMS
  check_ports --exclude-outbound-ports "$EXCLUDE_OUTBOUND_PORTS" plain
  EXCLUDE_OUTBOUND_PORTS=$ITEMS
  check_ranges --include-outbound-ip-ranges "$INCLUDE_OUTBOUND_IP_RANGES" star
  INCLUDE_RANGES_4=$RANGES_4
  INCLUDE_RANGES_6=$RANGES_6
  check_ranges --exclude-outbound-ip-ranges "$EXCLUDE_OUTBOUND_IP_RANGES" plain
  EXCLUDE_RANGES_4=$RANGES_4
  EXCLUDE_RANGES_6=$RANGES_6
  check_interfaces --exclude-interfaces "$EXCLUDE_INTERFACES"
  EXCLUDE_INTERFACES=$ITEMS
  check_listener --inbound-port "$INBOUND_PORT"
  check_listener --outbound-port "$OUTBOUND_PORT"
  [ "$INBOUND_PORT" != "$OUTBOUND_PORT" ] ||
    refuse --outbound-port "$OUTBOUND_PORT" 'a port other than --inbound-port' 'the two directions need two listeners'
  check_id --proxy-uid "$PROXY_UID"
  check_id --proxy-gid "$PROXY_GID"
  case $IPV6 in
    auto | on | off) ;;
    *) refuse --ipv6 "$IPV6" 'auto, on or off' ;;
  esac
}

# is_number VALUE MAX: decimal, no sign, no leading zeros, 0..MAX
is_number() {
  case $1 in
    '' | *[!0-9]* | 0?* | ???????????*) return 1 ;;
  esac
  [ "$1" -le "$2" ]
}

is_port() { is_number "$1" 65535 && [ "$1" != 0 ]; }

# split OPTION VALUE ACCEPTED: the items of a comma-separated list, trimmed, in ITEMS, separated by single spaces.
split() {
  ITEMS=
  split_rest=$(trimmed "$2")
  [ -n "$split_rest" ] || return 0
  split_rest=$split_rest,
  while [ -n "$split_rest" ]; do
    split_item=$(trimmed "${split_rest%%,*}")
    split_rest=${split_rest#*,}
    case $split_item in
      '') refuse "$1" "$2" "$3" 'an item of the list is empty' ;;
      *[[:space:]]*) refuse "$1" "$2" "$3" 'items are separated by commas' ;;
    esac
    ITEMS="${ITEMS:+$ITEMS }$split_item"
  done
}

trimmed() {
  trimmed_text=${1#"${1%%[! 	]*}"}
  printf '%s' "${trimmed_text%"${trimmed_text##*[! 	]}"}"
}

# check_ports OPTION VALUE star|plain
check_ports() {
  cp_accepted="ports 1-65535 separated by commas, or ''"
  [ "$3" = plain ] || cp_accepted="'*' alone, ports 1-65535 separated by commas, or ''"
  split "$1" "$2" "$cp_accepted"
  for cp_item in $ITEMS; do
    if [ "$cp_item" = '*' ]; then
      [ "$3" = star ] || refuse "$1" "$2" "$cp_accepted" "'*' has no meaning here"
      [ "$ITEMS" = '*' ] || refuse "$1" "$2" "$cp_accepted" "'*' cannot be mixed with ports"
    else
      is_port "$cp_item" || refuse "$1" "$cp_item" "$cp_accepted"
    fi
  done
}

# check_ranges OPTION VALUE star|plain: sets RANGES_4 and RANGES_6
check_ranges() {
  cr_accepted="CIDRs such as 10.0.0.0/8 or fd00::/8 separated by commas, or ''"
  [ "$3" = plain ] || cr_accepted="'*' alone, CIDRs such as 10.0.0.0/8 or fd00::/8 separated by commas, or ''"
  split "$1" "$2" "$cr_accepted"
  RANGES_4=
  RANGES_6=
  for cr_item in $ITEMS; do
    if [ "$cr_item" = '*' ]; then
      [ "$3" = star ] || refuse "$1" "$2" "$cr_accepted" "'*' has no meaning here"
      [ "$ITEMS" = '*' ] || refuse "$1" "$2" "$cr_accepted" "'*' cannot be mixed with CIDRs"
      RANGES_4='*'
      RANGES_6='*'
    elif is_cidr4 "$cr_item"; then
      RANGES_4="${RANGES_4:+$RANGES_4 }$cr_item"
    elif is_cidr6 "$cr_item"; then
      RANGES_6="${RANGES_6:+$RANGES_6 }$cr_item"
    else
      refuse "$1" "$cr_item" "$cr_accepted"
    fi
  done
}

is_cidr4() {
  case $1 in
    */*) is_number "${1#*/}" 32 || return 1 ;;
    *) return 1 ;;
  esac
  case ${1%%/*} in
    *[!0-9.]* | .* | *. | *..*) return 1 ;;
  esac
  ic_ifs=$IFS
  IFS=.
  # shellcheck disable=SC2086 # splitting at the dots is the point
  set -- ${1%%/*}
  IFS=$ic_ifs
  [ $# -eq 4 ] || return 1
  for ic_octet; do
    is_number "$ic_octet" 255 || return 1
  done
}

# No zones (a range has none) and no dotted tails: an IPv6 packet never carries ::ffff:10.0.0.1, so such a range would
# silently match nothing.
is_cidr6() {
  case $1 in
    */*) is_number "${1#*/}" 128 || return 1 ;;
    *) return 1 ;;
  esac
  ic_max=8
  case ${1%%/*} in
    *[!0-9a-fA-F:]* | *:::* | *::*::* | :[!:]* | *[!:]:) return 1 ;;
    *::*) ic_max=7 ;;
  esac
  ic_ifs=$IFS
  IFS=:
  # shellcheck disable=SC2086 # splitting at the colons is the point
  set -- ${1%%/*}
  IFS=$ic_ifs
  ic_count=0
  for ic_group; do
    case $ic_group in
      '') ;;
      ?????*) return 1 ;;
      *) ic_count=$((ic_count + 1)) ;;
    esac
  done
  [ "$ic_count" -eq 8 ] || { [ "$ic_max" -eq 7 ] && [ "$ic_count" -le 7 ]; }
}

check_interfaces() {
  ci_accepted="interface names of 1-15 letters, digits, '_', '.', '-' or '@', a closing '+' for any name that begins so, separated by commas, or ''"
  split "$1" "$2" "$ci_accepted"
  for ci_item in $ITEMS; do
    case $ci_item in
      -* | ????????????????* | *[!A-Za-z0-9_.@+-]* | *+?*) refuse "$1" "$ci_item" "$ci_accepted" ;;
    esac
  done
}

check_listener() {
  is_port "$2" || refuse "$1" "$2" 'one port 1-65535'
  for cl_port in $UNCAPTURED_PORTS; do
    [ "$2" != "$cl_port" ] || refuse "$1" "$2" 'one port 1-65535 other than 15008, 15020 and 15021' 'another listener of the proxy has it'
  done
}

# 0 is refused because it would exempt every process that runs as root, which in containers is most of them.
check_id() {
  is_number "$2" 4294967294 && [ "$2" != 0 ] || refuse "$1" "$2" 'one number 1-4294967294 (0 would exempt everything that runs as root)'
}

# ---- the rules ---------------------------------------------------------------------------------------------------

# wanted FAMILY: what apply wants to be there, in WANTED_CHAINS, WANTED_RULES (with comments) and WANTED_JUMPS.
wanted() {
  case $1 in
    4)
      w_passthrough=127.0.0.6/32 w_loopback=127.0.0.0/8
      w_include=$INCLUDE_RANGES_4 w_exclude=$EXCLUDE_RANGES_4
      ;;
    6)
      w_passthrough=::6/128 w_loopback=::1/128
      w_include=$INCLUDE_RANGES_6 w_exclude=$EXCLUDE_RANGES_6
      ;;
  esac
  WANTED_CHAINS='HANDFAST_INBOUND HANDFAST_IN_REDIRECT HANDFAST_OUTPUT HANDFAST_REDIRECT'
  WANTED_JUMPS="-A PREROUTING -p tcp -j HANDFAST_INBOUND$NL-A OUTPUT -p tcp -j HANDFAST_OUTPUT$NL"
  WANTED_RULES=

  add "# the two listeners"
  add "-A HANDFAST_IN_REDIRECT -p tcp -j REDIRECT --to-ports $INBOUND_PORT"
  add "-A HANDFAST_REDIRECT -p tcp -j REDIRECT --to-ports $OUTBOUND_PORT"

  add "# inbound: not the tunnel, metrics and probes, readiness"
  for w_port in $UNCAPTURED_PORTS; do
    add "-A HANDFAST_INBOUND -p tcp --dport $w_port -j RETURN"
  done
  add "# inbound: not what is excluded; then what is included"
  for w_port in $EXCLUDE_INBOUND_PORTS; do
    add "-A HANDFAST_INBOUND -p tcp --dport $w_port -j RETURN"
  done
  for w_interface in $EXCLUDE_INTERFACES; do
    add "-A HANDFAST_INBOUND -i $w_interface -j RETURN"
  done
  for w_port in $INCLUDE_INBOUND_PORTS; do
    case $w_port in
      '*') add "-A HANDFAST_INBOUND -p tcp -j HANDFAST_IN_REDIRECT" ;;
      *) add "-A HANDFAST_INBOUND -p tcp --dport $w_port -j HANDFAST_IN_REDIRECT" ;;
    esac
  done

  add "# outbound: not the inbound listener handing over to the application"
  add "-A HANDFAST_OUTPUT -o lo -s $w_passthrough -j RETURN"
  add "# outbound: the proxy calling its own pod through a service address comes in like a remote caller"
  add "-A HANDFAST_OUTPUT -o lo ! -d $w_loopback -m owner --uid-owner $PROXY_UID -j HANDFAST_INBOUND"
  add "-A HANDFAST_OUTPUT -o lo ! -d $w_loopback -m owner --gid-owner $PROXY_GID -j HANDFAST_INBOUND"
  add "# outbound: not the proxy itself, not within the pod"
  add "-A HANDFAST_OUTPUT -m owner --uid-owner $PROXY_UID -j RETURN"
  add "-A HANDFAST_OUTPUT -m owner --gid-owner $PROXY_GID -j RETURN"
  add "-A HANDFAST_OUTPUT -o lo -j RETURN"
  add "-A HANDFAST_OUTPUT -d $w_loopback -j RETURN"
  add "# outbound: not what is excluded; then what is included"
  for w_interface in $EXCLUDE_INTERFACES; do
    add "-A HANDFAST_OUTPUT -o $w_interface -j RETURN"
  done
  for w_port in $EXCLUDE_OUTBOUND_PORTS; do
    add "-A HANDFAST_OUTPUT -p tcp --dport $w_port -j RETURN"
  done
  for w_range in $w_exclude; do
    add "-A HANDFAST_OUTPUT -d $w_range -j RETURN"
  done
  for w_port in $INCLUDE_OUTBOUND_PORTS; do
    add "-A HANDFAST_OUTPUT -p tcp --dport $w_port -j HANDFAST_REDIRECT"
  done
  for w_range in $w_include; do
    case $w_range in
      '*') add "-A HANDFAST_OUTPUT -p tcp -j HANDFAST_REDIRECT" ;;
      *) add "-A HANDFAST_OUTPUT -d $w_range -p tcp -j HANDFAST_REDIRECT" ;;
    esac
  done
}

add() { WANTED_RULES=$WANTED_RULES$1$NL; }

# want CHAINS RULES JUMPS: the same three variables from elsewhere: nothing for clean, what was there for a roll-back.
want() {
  WANTED_CHAINS=$1
  WANTED_RULES=$2
  WANTED_JUMPS=$3
}

# ---- the kernel's side -------------------------------------------------------------------------------------------

save_tool() { case $1 in 4) echo iptables-save ;; 6) echo ip6tables-save ;; esac; }
restore_tool() { case $1 in 4) echo iptables-restore ;; 6) echo ip6tables-restore ;; esac; }
installed() { command -v "$(save_tool "$1")" >/dev/null 2>&1 && command -v "$(restore_tool "$1")" >/dev/null 2>&1; }

# read_rules FAMILY: what is there of ours, in PRESENT_CHAINS, PRESENT_RULES and PRESENT_JUMPS. Ours are the chains named
# HANDFAST_* and every rule elsewhere that jumps to one. All tables are listed, as asking legacy iptables for one by name creates it.
read_rules() {
  PRESENT_CHAINS=
  PRESENT_RULES=
  PRESENT_JUMPS=
  rr_saved=$("$(save_tool "$1")") || return 1
  rr_table=
  while IFS= read -r rr_line; do
    case $rr_line in
      '*'*) rr_table=${rr_line#?} ;;
    esac
    [ "$rr_table" = nat ] || continue
    case $rr_line in
      :HANDFAST_*)
        rr_line=${rr_line#:}
        PRESENT_CHAINS="${PRESENT_CHAINS:+$PRESENT_CHAINS }${rr_line%% *}"
        ;;
      '-A HANDFAST_'*) PRESENT_RULES=$PRESENT_RULES$rr_line$NL ;;
      '-A '*' -j HANDFAST_'* | '-A '*' -g HANDFAST_'*) PRESENT_JUMPS=$PRESENT_JUMPS$rr_line$NL ;;
    esac
  done <<EOF
$rr_saved
EOF
}

# transaction: the restore input that turns PRESENT_* into WANTED_*, in TRANSACTION; empty when both are empty. Naming a
# chain flushes it, so old rules never mix with new ones, and the kernel takes all of it or nothing. Jumps that are already
# right stay where they are: their place among other people's rules is kept.
transaction() {
  TRANSACTION=
  [ -n "$PRESENT_CHAINS$PRESENT_JUMPS$WANTED_CHAINS$WANTED_JUMPS" ] || return 0
  TRANSACTION="*nat$NL"
  for t_chain in $WANTED_CHAINS; do
    TRANSACTION="$TRANSACTION:$t_chain - [0:0]$NL"
  done
  t_new_jumps=
  if [ "$PRESENT_JUMPS" != "$WANTED_JUMPS" ]; then
    while IFS= read -r t_line; do
      [ -z "$t_line" ] || TRANSACTION="$TRANSACTION-D ${t_line#-A }$NL"
    done <<EOF
$PRESENT_JUMPS
EOF
    t_new_jumps=$WANTED_JUMPS
  fi
  TRANSACTION=$TRANSACTION$WANTED_RULES$t_new_jumps
  t_deletions=
  for t_chain in $PRESENT_CHAINS; do
    case " $WANTED_CHAINS " in
      *" $t_chain "*) ;;
      *)
        TRANSACTION="$TRANSACTION-F $t_chain$NL"
        t_deletions="$t_deletions-X $t_chain$NL"
        ;;
    esac
  done
  TRANSACTION="$TRANSACTION${t_deletions}COMMIT$NL"
}

# commit FAMILY: hands TRANSACTION to the kernel, then reads it back: a save and a restore that work on different back ends
# (nft and legacy mixed up) would otherwise look like success.
commit() {
  [ -n "$TRANSACTION" ] || return 0
  printf '%s' "$TRANSACTION" | "$(restore_tool "$1")" --noflush -w 30 || return 1
  read_rules "$1" || return 1
  if [ "$PRESENT_JUMPS" != "$WANTED_JUMPS" ] || [ "$(count_rules "$PRESENT_RULES")" != "$(count_rules "$WANTED_RULES")" ]; then
    complain "IPv$1: $(save_tool "$1") does not show what $(restore_tool "$1") said it did; do both belong to the same iptables?"
    return 1
  fi
}

count_rules() {
  n_count=0
  while IFS= read -r n_line; do
    case $n_line in
      -A*) n_count=$((n_count + 1)) ;;
    esac
  done <<EOF
$1
EOF
  echo "$n_count"
}

# Has this network namespace IPv6? Only a clear no counts as one: a kernel without it, or no address of it and every
# interface there is with disable_ipv6 set.
kernel_has_ipv6() {
  [ -e /proc/net/dev ] || return 0
  [ -e /proc/net/if_inet6 ] || return 1
  ! read -r kh_switch </proc/net/if_inet6 || return 0
  set +f
  set -- /proc/sys/net/ipv6/conf/*/disable_ipv6
  set -f
  for kh_switch; do # all, default, and one for each interface
    kh_disabled=
    # Shells read byte by byte, and a sysctl ends after the first: read fails there and has the value all the same.
    read -r kh_disabled 2>/dev/null <"$kh_switch"
    [ "$kh_disabled" = 1 ] || return 0
  done
  return 1
}

passthrough_on_lo() {
  [ -e /proc/net/if_inet6 ] || return 1
  while read -r pl_address pl_index pl_prefix pl_scope pl_flags pl_interface; do
    [ "$pl_address $pl_interface" != '00000000000000000000000000000006 lo' ] || return 0
  done </proc/net/if_inet6
  return 1
}

# ---- the commands ------------------------------------------------------------------------------------------------

CAUSES='Usual causes: the container lacks the capabilities NET_ADMIN and NET_RAW (securityContext.capabilities.add); the node has no nat table or lacks the owner match (modprobe nf_nat xt_owner xt_REDIRECT, and for legacy iptables iptable_nat ip6table_nat); legacy iptables cannot create its lock under a read-only /run.'
OPT_OUT='If it is acceptable that IPv6 traffic bypasses the mesh, say so with --ipv6 off.'

require_root() {
  [ "$(id -u)" = 0 ] ||
    fail "'$ACTION' changes the rules of this network namespace and needs root; run it with sudo, or in an init container with runAsUser: 0 and the capabilities NET_ADMIN and NET_RAW. 'print' and '--dry-run' work without."
}

require_installed() {
  installed "$1" && return 0
  case $1 in
    4) fail "iptables-save and iptables-restore are not on PATH; install iptables (apt-get install iptables, apk add iptables, dnf install iptables-nft)." ;;
    6) fail "IPv6 is in use here but ip6tables-save and ip6tables-restore are not on PATH; install them (apt-get install iptables, apk add ip6tables). $OPT_OUT" ;;
  esac
}

print_rules() {
  PRESENT_CHAINS='' PRESENT_JUMPS=''
  for p_family in 4 6; do
    if [ "$p_family" = 6 ]; then
      [ "$IPV6" != off ] || break
      echo
      echo '# before this: ip -6 addr replace ::6/128 dev lo'
    fi
    echo "# IPv$p_family: $(restore_tool "$p_family") --noflush -w 30"
    wanted "$p_family"
    transaction
    printf '%s' "$TRANSACTION"
  done
}

# Decides WITH_IPV6 for apply.
decide_ipv6() {
  WITH_IPV6=no
  case $IPV6 in
    on)
      kernel_has_ipv6 || fail "--ipv6 on: this network namespace has no IPv6 (a kernel without it, or disable_ipv6 on every interface); use --ipv6 auto or off."
      WITH_IPV6=yes
      ;;
    auto)
      if kernel_has_ipv6; then WITH_IPV6=yes; else note 'IPv6: this network namespace has none; only IPv4 is captured'; fi
      ;;
    off)
      ! kernel_has_ipv6 || note 'IPv6: left alone (--ipv6 off); IPv6 traffic bypasses the mesh'
      ;;
  esac
}

# remember FAMILY: what was there before, for the roll-back.
remember() {
  case $1 in
    4) BEFORE_CHAINS_4=$PRESENT_CHAINS BEFORE_RULES_4=$PRESENT_RULES BEFORE_JUMPS_4=$PRESENT_JUMPS ;;
    6) BEFORE_CHAINS_6=$PRESENT_CHAINS BEFORE_RULES_6=$PRESENT_RULES BEFORE_JUMPS_6=$PRESENT_JUMPS ;;
  esac
}

TOUCHED=
ADDRESS_ADDED=no

# roll_back REASON: undoes every family in TOUCHED, says so, and ends the script.
roll_back() {
  trap '' HUP INT TERM
  rb_failed=
  for rb_family in $TOUCHED; do
    case $rb_family in
      4) want "$BEFORE_CHAINS_4" "$BEFORE_RULES_4" "$BEFORE_JUMPS_4" ;;
      6) want "$BEFORE_CHAINS_6" "$BEFORE_RULES_6" "$BEFORE_JUMPS_6" ;;
    esac
    if ! read_rules "$rb_family"; then
      rb_failed="$rb_failed IPv$rb_family"
    elif [ "$PRESENT_CHAINS$NL$PRESENT_RULES$PRESENT_JUMPS" != "$WANTED_CHAINS$NL$WANTED_RULES$WANTED_JUMPS" ]; then
      transaction
      commit "$rb_family" || rb_failed="$rb_failed IPv$rb_family"
    fi
  done
  if [ "$ADDRESS_ADDED" = yes ] && passthrough_on_lo; then
    ip -6 addr del ::6/128 dev lo || rb_failed="$rb_failed ::6-on-lo"
  fi
  complain "$1"
  if [ -n "$rb_failed" ]; then
    complain "The roll-back failed too:$rb_failed is left half way. Do not start the application; run 'clean' until it succeeds, then 'apply'."
    exit 3
  fi
  complain 'Everything is as it was before.'
  exit 1
}

apply() {
  decide_ipv6
  a_readable=yes
  if [ "$DRY_RUN" = no ]; then
    require_root
    require_installed 4
    [ "$WITH_IPV6" = no ] || require_installed 6
    [ "$WITH_IPV6" = no ] || command -v ip >/dev/null 2>&1 || fail "ip is not on PATH and is needed to put ::6 on lo; install iproute2. $OPT_OUT"
  elif [ "$(id -u)" != 0 ] || ! installed 4; then
    a_readable=no
    note 'dry run: the present rules cannot be read (no root, or no iptables); shown as if there were none'
  fi

  # Read both families before touching either.
  for a_family in 4 6; do
    PRESENT_CHAINS='' PRESENT_RULES='' PRESENT_JUMPS=''
    if [ "$a_readable" = no ]; then
      :
    elif [ "$a_family" = 6 ] && [ "$WITH_IPV6" = no ]; then
      # An earlier apply may have left IPv6 rules that this one is to replace by none. What cannot be read is not ours.
      ! installed 6 || read_rules 6 2>/dev/null || PRESENT_CHAINS='' PRESENT_RULES='' PRESENT_JUMPS=''
    elif [ "$a_family" = 6 ]; then
      read_rules 6 || fail "IPv6: $(save_tool 6) failed (its message is above); nothing was changed. $CAUSES $OPT_OUT"
    else
      read_rules 4 || fail "IPv4: $(save_tool 4) failed (its message is above); nothing was changed. $CAUSES"
    fi
    remember "$a_family"
    case $a_family$WITH_IPV6 in
      6no) want '' '' '' ;;
      *) wanted "$a_family" ;;
    esac
    transaction
    case $a_family in
      4) a_transaction_4=$TRANSACTION ;;
      6) a_transaction_6=$TRANSACTION ;;
    esac
  done

  if [ "$DRY_RUN" = yes ]; then
    echo "# would feed to $(restore_tool 4) --noflush -w 30:"
    printf '%s' "$a_transaction_4"
    if [ "$WITH_IPV6" = yes ] && ! passthrough_on_lo; then echo '# would run: ip -6 addr replace ::6/128 dev lo'; fi
    if [ -n "$a_transaction_6" ]; then
      echo "# would feed to $(restore_tool 6) --noflush -w 30:"
      printf '%s' "$a_transaction_6"
    fi
    return 0
  fi

  trap 'roll_back "interrupted by a signal"' HUP INT TERM
  TOUCHED=4
  wanted 4
  TRANSACTION=$a_transaction_4
  commit 4 || roll_back "IPv4: the rules were refused (the message of $(restore_tool 4) is above). $CAUSES"
  if [ "$WITH_IPV6" = yes ] && ! passthrough_on_lo; then
    ADDRESS_ADDED=yes
    ip -6 addr replace ::6/128 dev lo ||
      roll_back "IPv6: ::6 could not be put on lo (the message of ip is above; is net.ipv6.conf.lo.disable_ipv6 set?). $OPT_OUT"
  fi
  if [ -n "$a_transaction_6" ]; then
    TOUCHED='6 4'
    if [ "$WITH_IPV6" = yes ]; then wanted 6; else want '' '' ''; fi
    TRANSACTION=$a_transaction_6
    commit 6 || roll_back "IPv6: the rules were refused (the message of $(restore_tool 6) is above). $CAUSES $OPT_OUT"
  fi
  trap - HUP INT TERM
  a_families=IPv4
  [ "$WITH_IPV6" = no ] || a_families='IPv4 and IPv6'
  note "$a_families: inbound goes to port $INBOUND_PORT, outbound to port $OUTBOUND_PORT; uid $PROXY_UID and gid $PROXY_GID are exempt"
}

clean() {
  c_failed=no
  if [ "$DRY_RUN" = no ]; then
    require_root
    require_installed 4
  elif [ "$(id -u)" != 0 ] || ! installed 4; then
    fail "the present rules cannot be read, so there is nothing to show: that needs root and iptables."
  fi
  for c_family in 4 6; do
    if [ "$c_family" = 6 ]; then
      # Without ip6tables no IPv6 rules were made by us here. IPv6 may have been switched off since; the rules stay then.
      [ "$IPV6" != off ] && installed 6 || continue
    fi
    if ! read_rules "$c_family"; then
      if [ "$c_family" = 6 ] && ! kernel_has_ipv6; then continue; fi
      complain "IPv$c_family: $(save_tool "$c_family") failed (its message is above). $CAUSES"
      c_failed=yes
      continue
    fi
    want '' '' ''
    transaction
    if [ -z "$TRANSACTION" ]; then
      note "IPv$c_family: nothing to remove"
    elif [ "$DRY_RUN" = yes ]; then
      echo "# would feed to $(restore_tool "$c_family") --noflush -w 30:"
      printf '%s' "$TRANSACTION"
    elif commit "$c_family"; then
      note "IPv$c_family: removed"
    else
      complain "IPv$c_family: the rules could not be removed (the message of $(restore_tool "$c_family") is above). $CAUSES"
      c_failed=yes
    fi
  done
  if passthrough_on_lo; then
    if [ "$DRY_RUN" = yes ]; then
      echo '# would run: ip -6 addr del ::6/128 dev lo'
    elif ! ip -6 addr del ::6/128 dev lo; then
      complain '::6 could not be taken off lo (the message of ip is above; install iproute2 if it is missing).'
      c_failed=yes
    fi
  fi
  [ "$c_failed" = no ] || exit 1
}

parse_command_line "$@"
check_command_line
case $ACTION in
  apply) apply ;;
  clean) clean ;;
  print) print_rules ;;
esac
