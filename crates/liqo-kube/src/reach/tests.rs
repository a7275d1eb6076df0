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
    assert_eq!(reach.check_host("a.b"), Ok(()), "what a name leads to is checked when it is known");
}

#[test]
fn a_url_is_of_https_and_has_a_host_and_no_user() {
    for url in ["https://a.b", "https://a.b/", "https://10.0.0.1:30000/ids", "https://[fd00::7]:443"] {
        assert!(checked(url).is_ok(), "{url}");
    }
    for (url, why) in [
        ("nonsense", "https://"),
        ("/a", "has no host"),
        ("", "not a URL"),
        ("http://a", "must begin with https://"),
        ("ftp://a", "must begin with https://"),
        ("https://me@a", "user"),
        ("https://", "not a URL"),
    ] {
        let refused = checked(url).unwrap_err();
        assert!(refused.contains(why), "{url}: {refused}");
    }
}

/// A TLS server with a key of its own that answers every request with these bytes and then stays silent.
async fn server(answer: Vec<u8>) -> (String, String) {
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
    (url, certs::pin(pair.certificate.as_bytes()).unwrap())
}

async fn get(reach: &Reach, url: &str, trust: &Trust) -> Result<Answer, String> {
    reach.ask(Ask::get(&format!("{url}/ids"), trust)).await
}

#[tokio::test]
async fn another_key_than_expected_is_sent_nothing() {
    certs::install_crypto();
    let (url, key) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec()).await;
    let anywhere = Reach::anywhere();
    let answer = get(&anywhere, &url, &Trust::Anybody).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"hi"[..]));
    assert!(get(&anywhere, &url, &Trust::Key(key)).await.is_ok());
    let other = Trust::Key("a-_4567890123456789012345678901234567890123".to_owned());
    let refused = get(&anywhere, &url, &other).await.unwrap_err();
    assert!(refused.contains(ANOTHER_KEY), "{refused}");
    let stranger = certs::authority(&Subject::new("stranger", ""), Duration::from_secs(600)).unwrap();
    let vouched = Trust::Authorities(stranger.certificate.into_bytes());
    assert!(get(&anywhere, &url, &vouched).await.unwrap_err().starts_with("TLS"));
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
