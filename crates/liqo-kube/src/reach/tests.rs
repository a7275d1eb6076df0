use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::certs::{self, Shown, Subject};

#[test]
fn addresses_that_are_of_no_other_cluster_are_never_reached() {
    let reach = Reach::default();
    for bad in [
        "127.0.0.1",
        "127.8.9.10",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "100.100.100.200",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
    ] {
        assert!(reach.check(bad.parse().unwrap()).is_err(), "{bad}");
        assert!(reach.check_host(bad).is_err() && reach.check_host(&format!("[{bad}]")).is_err(), "{bad}");
    }
    for good in ["10.0.0.1", "172.30.0.2", "192.168.1.1", "100.64.0.1", "8.8.8.8", "fd00::7", "2001:db8::1"] {
        assert_eq!(reach.check(good.parse().unwrap()), Ok(()), "{good}");
    }
    let stricter = reach.except(["10.96.0.0/12".parse().unwrap()]);
    assert!(stricter.check("10.97.0.1".parse().unwrap()).unwrap_err().contains("10.96.0.0/12"));
    assert_eq!(stricter.check_host("a.b"), Ok(()), "what a name leads to is checked when it is known");
}

#[test]
fn a_url_is_a_host_and_a_port_and_nothing_else() {
    for (url, expected) in [
        ("https://a.b", ("a.b", 443)),
        ("https://a.b/", ("a.b", 443)),
        ("https://10.0.0.1:30000", ("10.0.0.1", 30000)),
        ("https://[fd00::7]:443", ("[fd00::7]", 443)),
    ] {
        assert_eq!(place(url), Ok((expected.0.to_owned(), expected.1)), "{url}");
    }
    for (url, why) in [
        ("nonsense", "https://"),
        ("/a", "https://"),
        ("", "not a URL"),
        ("http://a", "does not begin with https://"),
        ("ftp://a", "does not begin with https://"),
        ("https://me@a", "user"),
        ("https://a/b", "path"),
        ("https://a?b", "path"),
        ("https://", "not a URL"),
    ] {
        let refused = place(url).unwrap_err();
        assert!(refused.contains(why), "{url}: {refused}");
    }
}

#[test]
fn a_pin_reads_as_it_is_written() {
    let pin = Pin(std::array::from_fn(|i| u8::try_from(i * 7 % 256).unwrap()));
    assert_eq!(pin.to_string().parse(), Ok(pin));
    assert_eq!(pin.to_string().len(), 71);
    for bad in ["", "sha256:", "sha256:00", &format!("sha256:{}", "é".repeat(32)), &"0".repeat(64)] {
        assert!(bad.parse::<Pin>().is_err(), "{bad}");
    }
}

/// A TLS server with a key of its own that answers every request with these bytes and then stays silent.
async fn server(answer: Vec<u8>) -> (String, Pin) {
    let shown = Arc::new(Shown::default());
    let pair =
        certs::self_signed(&Subject::new("server", ""), &["127.0.0.1".to_owned()], Duration::from_secs(600)).unwrap();
    shown.show(&pair).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let acceptor = tokio_rustls::TlsAcceptor::from(certs::server_config(shown));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = [0; 4096];
                if stream.read(&mut head).await.is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(&answer).await;
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    let (_, pem) = x509_parser::pem::parse_x509_pem(pair.certificate.as_bytes()).unwrap();
    (url, Pin::of(&CertificateDer::from(pem.contents)).unwrap())
}

async fn get(reach: &Reach, url: &str, trust: &Trust) -> Result<Answer, String> {
    reach.ask(Ask { method: Method::GET, url, path: "/ids", body: Vec::new(), trust }).await
}

#[tokio::test]
async fn the_key_is_told_and_another_one_is_sent_nothing() {
    certs::install_crypto();
    let (url, key) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec()).await;
    let anywhere = Reach::anywhere();
    let answer = get(&anywhere, &url, &Trust::Anybody).await.unwrap();
    assert_eq!((answer.status, &answer.body[..], answer.key), (StatusCode::OK, &b"hi"[..], key));
    assert!(get(&anywhere, &url, &Trust::Key(key)).await.is_ok());
    let refused = get(&anywhere, &url, &Trust::Key(Pin([0; 32]))).await.unwrap_err();
    assert!(refused.contains("another key"), "{refused}");
    let refused = get(&Reach::default(), &url, &Trust::Anybody).await.unwrap_err();
    assert!(refused.contains("127.0.0.0/8"), "{refused}");
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    certs::install_crypto();
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n";
    let (url, _) = server(redirect.into()).await;
    assert_eq!(get(&Reach::anywhere(), &url, &Trust::Anybody).await.unwrap().status, StatusCode::FOUND);
}

#[tokio::test]
async fn an_answer_without_end_ends() {
    certs::install_crypto();
    let mut long = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n".to_vec();
    long.resize(LONGEST + 1000, b' ');
    let (url, _) = server(long).await;
    let why = get(&Reach::anywhere(), &url, &Trust::Anybody).await.unwrap_err();
    assert!(why.contains("limit"), "{why}");
    let (url, _) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx".to_vec()).await;
    let why = get(&Reach::anywhere(), &url, &Trust::Anybody).await.unwrap_err();
    assert!(why.contains("no answer within"), "{why}");
    let mut head = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
    head.resize(200_000, b'x');
    let (url, _) = server(head).await;
    assert!(get(&Reach::anywhere(), &url, &Trust::Anybody).await.unwrap_err().contains("HTTP"));
}
