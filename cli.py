import socket,sys,time
end=time.time()+float(sys.argv[1]); src=sys.argv[2]
while time.time()<end:
    s=socket.socket()
    try:
        s.bind((src,0)); s.connect(('127.0.0.1',8080)); s.close(); time.sleep(0.05)
    except OSError: s.close()
