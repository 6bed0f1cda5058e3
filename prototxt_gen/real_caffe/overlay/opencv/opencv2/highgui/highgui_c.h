#include <opencv2/highgui/highgui.hpp>
