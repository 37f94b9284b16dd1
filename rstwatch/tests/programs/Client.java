import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;

/** HTTP clients and sockets of Java's own library, which do what is read line by line. */
class Client {
    private static final BufferedReader INPUT = new BufferedReader(new InputStreamReader(System.in));
    private static final byte[] MORE = "more".getBytes();

    private static HttpClient pool;
    private static Socket socket;
    private static SocketChannel channel;

    public static void main(String[] args) throws Exception {
        pool = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        System.out.println("ready");
        for (String line = INPUT.readLine(); line != null; line = INPUT.readLine()) {
            String answer;
            try {
                answer = obey(line.split(" "));
            } catch (IOException e) {
                answer = e.toString();
            }
            System.out.println(answer);
        }
    }

    private static String obey(String[] words) throws Exception {
        switch (words[0]) {
            case "fetch": return fetch(words[1]);
            case "leave": return leave(words[1]);
            case "open":
                socket = new Socket("127.0.0.1", Integer.parseInt(words[1]));
                socket.getOutputStream().write(MORE);
                return "open";
            case "read": return "read " + socket.getInputStream().read();
            case "write":
                socket.getOutputStream().write(MORE);
                return "written";
            case "abort":
                socket.setSoLinger(true, 0);
                socket.close();
                return "closed";
            case "open-channel":
                channel = SocketChannel.open(new InetSocketAddress("127.0.0.1", Integer.parseInt(words[1])));
                channel.write(ByteBuffer.wrap(MORE));
                return "open";
            case "read-channel": return "read " + channel.read(ByteBuffer.allocate(10));
            case "write-channel":
                channel.write(ByteBuffer.wrap(MORE));
                return "written";
            default: throw new IllegalArgumentException(words[0]);
        }
    }

    /** One request, on a pooled connection if there is one. */
    private static String fetch(String url) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
        try (InputStream body = connection.getInputStream()) {
            return new String(body.readAllBytes());
        }
    }

    /** Closes in the middle of the answer. */
    private static String leave(String url) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).build();
        try (InputStream body = pool.send(request, BodyHandlers.ofInputStream()).body()) {
            body.readNBytes(10);
            System.out.println("reading");
            INPUT.readLine();
        }
        return "closed";
    }
}
