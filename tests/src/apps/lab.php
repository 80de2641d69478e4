<?php
// The lab's PHP script: the last word of the path says what it does.
$word = basename(parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH));
switch ($word) {
    case 'sleep':
        sleep(20);
        break;
    case 'kill':
        posix_kill(getmypid(), SIGKILL);
        break;
    case 'hold':
        sleep(4);
        break;
    case 'fail':
        http_response_code(502);
        break;
    case 'complain':
        // Longer than what is kept of an answer.
        error_log(str_repeat('the cart is on fire; ', 40));
        http_response_code(502);
        break;
    case 'big':
        for ($i = 0; $i < 200; $i++) {
            header("X-Filler-$i: " . str_repeat('x', 1000));
        }
        break;
    case 'eat':
        ini_set('memory_limit', '-1');
        $held = [];
        while (true) {
            $held[] = str_repeat('x', 1 << 20);
        }
}
echo "ok\n";
