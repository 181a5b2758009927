//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// reach connects, and waits for an answer.
func reach(network, address, text string) error {
	conn, err := net.DialTimeout(network, address, 2*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func tcp(args []string) error        { return reach("tcp", args[0], "CONNECT {}\r\n") }
func udp(args []string) error        { return reach("udp", args[0], "who is there") }
func unixSocket(args []string) error { return reach("unix", args[0], "GET /_ping HTTP/1.0\r\n\r\n") }

// family makes sockets of families that few need and that had bugs.
func family([]string) error {
	failed := errors.New("none")
	for name, number := range map[string]int{
		"AF_ALG": unix.AF_ALG, "AF_APPLETALK": unix.AF_APPLETALK, "AF_BLUETOOTH": unix.AF_BLUETOOTH, "AF_CAN": unix.AF_CAN, "AF_KEY": unix.AF_KEY,
		"AF_RDS": unix.AF_RDS, "AF_TIPC": unix.AF_TIPC, "AF_X25": unix.AF_X25, "AF_XDP": unix.AF_XDP,
	} {
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_SEQPACKET, unix.SOCK_STREAM} {
			if _, err := unix.Socket(number, kind, 0); err == nil {
				fmt.Println("a socket of", name)
				return nil
			} else {
				failed = err
			}
		}
	}
	return failed
}

// interfaces looks for one beside the loopback interface.
func interfaces([]string) error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, one := range all {
		if one.Flags&net.FlagLoopback == 0 && one.Flags&net.FlagUp != 0 {
			fmt.Println("there is", one.Name)
			return nil
		}
	}
	return errors.New("no interface but loopback is up")
}

// raw makes a socket that sends packets as it likes.
func raw([]string) error {
	_, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	return err
}

// packet makes a socket that sees the packets of others.
func packet([]string) error {
	const all = 0x0300 // ETH_P_ALL in network byte order
	_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, all)
	return err
}

// route looks whether there is a way to an address. Nothing is sent: a datagram socket is only told where to.
func route(args []string) error {
	conn, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("from", conn.LocalAddr())
	return conn.Close()
}

// vsock makes a socket to the machine that this one is a guest of; network namespaces do not count for it.
func vsock([]string) error {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
